"""How large transformed records will be, from a few of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from tenfold.data.errors import JobError
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.planning.plan_layout import SplitFraction
from tenfold.data.planning.write_plan import SizeEstimate
from tenfold.data.runtime.process_pool import run_pool
from tenfold.data.sources.base import Source, UnusableRecord
from tenfold.data.transforms.base import RecordSeed
from tenfold.data.transforms.chain import Chain

SAMPLED: Final = 32


def estimate_sizes(
    source: Source, chain: Chain, splits: Sequence[SplitFraction], *, seed: int
) -> list[SizeEstimate]:
    """Returns the sizes of each split's records, measured on SAMPLED examples.

    It is done in a process of its own, so that what transforms import stays out of this one.

    Raises:
      JobError: every sampled record is broken.
    """
    if not chain.steps:
        return [_as_they_are(source)] * len(splits)
    chains = [chain.of_split(split.name) for split in splits]
    measured: dict[int, SizeEstimate] = {}
    for which, found in run_pool(
        partial(_measure, source, seed, chains), range(len(chains)), processes=1, inline=False
    ):
        measured[which] = found
    return [measured[which] for which in range(len(chains))]


def _as_they_are(source: Source) -> SizeEstimate:
    return SizeEstimate(source.stats.mean_record_bytes, source.stats.max_record_bytes)


def _measure(
    source: Source, seed: int, chains: list[Chain], which: int, note: Callable[[object], None]
) -> SizeEstimate:
    del note
    chain, count = chains[which], source.stats.num_examples
    if not chain.steps:
        return _as_they_are(source)
    sizes, bad = [], None
    for index in range(0, count, max(count // SAMPLED, 1)):
        copies = range(min(chain.copies, 2))  # the first one is unchanged, the others are alike
        draws = [RecordSeed(index, copy, seed) for copy in copies]
        try:
            records = [dict(source.features(index)) for _ in draws]
        except UnusableRecord as error:
            bad = error
            continue
        done = chain.apply(records, draws)
        good = [len(record.payload) for record in done if not isinstance(record, UnusableRecord)]
        bad = next((record for record in done if isinstance(record, UnusableRecord)), bad)
        if good:
            sizes.append(_weighted(good, chain.copies) + FRAME_BYTES)
    if not sizes:
        raise JobError(f"every sampled record is broken; the last one: {bad}")
    return SizeEstimate(sum(sizes) / len(sizes), round(max(sizes)), chain.copies)


def _weighted(sizes: list[int], copies: int) -> float:
    """Returns the mean size of all copies, of which the first is sizes[0]."""
    return (sizes[0] + sizes[-1] * (copies - 1)) / copies
