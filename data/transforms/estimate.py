"""Estimate the sizes of transformed records from a sample."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from tenfold.data.errors import JobError
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.planning.write_plan import SizeEstimate
from tenfold.data.runtime.process_pool import run_pool
from tenfold.data.sources.base import Encoded, Source, UnusableRecord
from tenfold.data.transforms.base import RecordSeed
from tenfold.data.transforms.chain import Chain

SAMPLED_EXAMPLES: Final = 32


def estimate_sizes(
    source: Source, chain: Chain, splits: Sequence[str], *, seed: int
) -> list[SizeEstimate]:
    """Return the record sizes of each split, measured on SAMPLED_EXAMPLES examples.

    Runs in a child process, so that modules imported by transforms (TensorFlow) stay out of the
    caller's.

    Args:
      source: The source.
      chain: All transforms of the write.
      splits: The names of the splits; each may use only some of the transforms.
      seed: Seed of the write.

    Raises:
      JobError: every sampled record is broken.
    """
    if not chain.steps:
        return [_untransformed(source)] * len(splits)
    chains = [chain.of_split(split) for split in splits]
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
    sample = _Sample()
    for example in range(0, count, max(count // SAMPLED_EXAMPLES, 1)):
        sample.add(_transformed(source, chain, example, seed), chain.copies)
    return sample.estimate(chain.copies, source)


class _Sample:
    """The records that became of the sampled examples."""

    def __init__(self) -> None:
        self._examples = 0
        self._records = self._bytes = 0.0
        self._max_bytes = 0
        self._error: UnusableRecord | None = None

    def add(self, results: Sequence[Sequence[Encoded | UnusableRecord]], copies: int) -> None:
        """Add an example's first copy, results[0], and any other, results[-1]."""
        packed = [[len(r.payload) for r in made if isinstance(r, Encoded)] for made in results]
        errors = [r for made in results for r in made if isinstance(r, UnusableRecord)]
        self._error = errors[-1] if errors else self._error
        if errors and not any(packed):
            return  # a broken record tells nothing of how many are chosen
        self._examples += 1
        for sizes, weight in zip(packed, _weights(len(packed), copies), strict=True):
            self._records += weight * len(sizes)
            self._bytes += weight * sum(sizes)
            self._max_bytes = max([self._max_bytes, *sizes])

    def estimate(self, copies: int, source: Source) -> SizeEstimate:
        """Return the mean sizes.

        Raises:
          JobError: every sampled record is broken.
        """
        if not self._examples:
            raise JobError(f"every sampled record is broken; the last one: {self._error}")
        if not self._records:  # fewer than one of the sample: a later record may still be chosen
            rare = _untransformed(source)
            return replace(rare, copies=copies, records_per_copy=1 / (self._examples + 1))
        return SizeEstimate(
            self._bytes / self._records + FRAME_BYTES,
            self._max_bytes + FRAME_BYTES,
            copies,
            self._records / (self._examples * copies),
        )


def _weights(sampled: int, copies: int) -> list[int]:
    """Return how many copies the first and the other sampled copy stand for."""
    return [1, copies - 1] if sampled > 1 else [1]


def _transformed(
    source: Source, chain: Chain, example: int, seed: int
) -> Sequence[Sequence[Encoded | UnusableRecord]]:
    """Return an example transformed: the first copy, which is unchanged, and one other."""
    seeds = [RecordSeed(example, copy, seed) for copy in range(min(chain.copies, 2))]
    try:
        records = [dict(source.features(example)) for _ in seeds]
    except UnusableRecord as error:
        return [[error]]
    return chain.apply(records, seeds)
