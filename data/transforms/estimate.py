"""Estimate the sizes of transformed records from a sample."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from tenfold.data.errors import JobError
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.planning.plan_layout import SplitFraction
from tenfold.data.planning.write_plan import SizeEstimate
from tenfold.data.runtime.process_pool import run_pool
from tenfold.data.sources.base import Encoded, Source, UnusableRecord
from tenfold.data.transforms.base import RecordSeed
from tenfold.data.transforms.chain import Chain

SAMPLED_EXAMPLES: Final = 32


def estimate_sizes(
    source: Source, chain: Chain, splits: Sequence[SplitFraction], *, seed: int
) -> list[SizeEstimate]:
    """Return the record sizes of each split, measured on SAMPLED_EXAMPLES examples.

    Runs in a child process, so that modules imported by transforms (TensorFlow) stay out of the
    caller's.

    Args:
      source: The source.
      chain: All transforms of the write.
      splits: The splits; each may use only some of the transforms.
      seed: Seed of the write.

    Raises:
      JobError: every sampled record is broken.
    """
    if not chain.steps:
        return [_untransformed(source)] * len(splits)
    chains = [chain.of_split(split.name) for split in splits]
    measure = partial(_measure, source, seed, chains)
    measured = dict(run_pool(measure, range(len(chains)), processes=1, inline=False))
    return [measured[index] for index in range(len(chains))]


def _untransformed(source: Source) -> SizeEstimate:
    return SizeEstimate(source.stats.mean_record_bytes, source.stats.max_record_bytes)


def _measure(
    source: Source, seed: int, chains: list[Chain], index: int, note: Callable[[object], None]
) -> SizeEstimate:
    """Return the estimate for `chains[index]`; the signature is the one of `run_pool`."""
    del note
    chain, count = chains[index], source.stats.num_examples
    if not chain.steps:
        return _untransformed(source)
    sizes: list[float] = []
    error: UnusableRecord | None = None
    for example in range(0, count, max(count // SAMPLED_EXAMPLES, 1)):
        results = _sample(source, chain, example, seed)
        error = next((r for r in results if isinstance(r, UnusableRecord)), error)
        packed = [len(r.payload) for r in results if not isinstance(r, UnusableRecord)]
        if packed:
            sizes.append(_mean_over_copies(packed, chain.copies) + FRAME_BYTES)
    if not sizes:
        raise JobError(f"every sampled record is broken; the last one: {error}")
    return SizeEstimate(sum(sizes) / len(sizes), round(max(sizes)), chain.copies)


def _sample(
    source: Source, chain: Chain, example: int, seed: int
) -> Sequence[Encoded | UnusableRecord]:
    """Return an example transformed: the first copy, which is unchanged, and one other."""
    seeds = [RecordSeed(example, copy, seed) for copy in range(min(chain.copies, 2))]
    try:
        records = [dict(source.features(example)) for _ in seeds]
    except UnusableRecord as error:
        return [error]
    return chain.apply(records, seeds)


def _mean_over_copies(sizes: list[int], copies: int) -> float:
    """Return the mean size of all copies; sizes[0] is the first, sizes[-1] any other."""
    return (sizes[0] + sizes[-1] * (copies - 1)) / copies
