"""What was read of a data set of a mixture, pass by pass. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

# Records, leftover records, and the sum of the fingerprints of both, modulo 2**64.
Counts = tuple[int, int, int]

_NONE: Counts = (0, 0, 0)


@dataclass(frozen=True)
class PassCounts:
    """The counts of a data set since the epoch began, in the pass that goes on and those before.

    Attributes:
      current: the counts of the pass that goes on, which may have begun in an earlier epoch.
      finished: the sums of the counts of the passes that have ended since the epoch began.
      passes: the number of these passes.
    """

    current: Counts = _NONE
    finished: Counts = _NONE
    passes: int = 0

    def plus(self, counts: Sequence[int], *, ends_pass: bool) -> "PassCounts":
        """Return the counts after further steps, whose last one may end the pass."""
        current = _sum(self.current, counts)
        if not ends_pass:
            return replace(self, current=current)
        return PassCounts(_NONE, _sum(self.finished, current), self.passes + 1)

    def next_epoch(self) -> "PassCounts":
        """Return the counts at the beginning of the next epoch."""
        return PassCounts(current=self.current)

    def with_sums(self, values: Sequence[int]) -> "PassCounts":
        """Return the counts with other sums: the current ones, then those of finished passes."""
        current, finished = tuple(values[:3]), tuple(values[3:6])
        return replace(self, current=current, finished=finished)  # type: ignore[arg-type]

    @property
    def sums(self) -> tuple[int, ...]:
        """The sums that `with_sums` takes."""
        return (*self.current, *self.finished)


def _sum(first: Sequence[int], second: Sequence[int]) -> Counts:
    records, left_out, fingerprint = (a + b for a, b in zip(first, second, strict=True))
    return records, left_out, fingerprint % 2**64
