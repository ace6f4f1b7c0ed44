"""The number of records that each lane gives to each global batch. Pure.

The records of an epoch's global batches are dealt to the lanes in turn, through all batches:
record i goes to turn i % num_lanes. So every lane gives batch_size / num_lanes records to a
batch, rounded up or down, and the rounding follows from the step and the lane alone. The lanes
that give one record more to a batch are spread over all lanes, so that workers with equally many
lanes get nearly equal parts of it.
"""

import itertools
import operator
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class BatchShares:
    """The shares of the lanes in global batches.

    Attributes:
      batch_size: the records of a global batch.
      num_lanes: the number of lanes.
    """

    batch_size: int
    num_lanes: int

    @property
    def are_equal(self) -> bool:
        """Whether every lane gives the same number of records to every batch."""
        return self.batch_size % self.num_lanes == 0

    @property
    def max_lane_records(self) -> int:
        """The largest number of records that a lane gives to a batch."""
        return -(-self.batch_size // self.num_lanes)

    @cached_property
    def _factors(self) -> tuple[int, ...]:
        """The prime factors of the number of lanes, ascending."""
        factors, rest, prime = [], self.num_lanes, 2
        while rest > 1:
            while rest % prime == 0:
                factors.append(prime)
                rest //= prime
            prime = prime + 1 if prime * prime <= rest else rest
        return tuple(factors)

    def splits_evenly(self, num_workers: int) -> bool:
        """Whether every batch has equal parts for workers that share the lanes."""
        if num_workers == 1 or (self.are_equal and self.num_lanes % num_workers == 0):
            return True
        # The lanes of consecutive turns are in different parts, for these numbers of parts.
        evenly = itertools.accumulate(self._factors, operator.mul)
        return self.batch_size % num_workers == 0 and num_workers in evenly

    def turn(self, lane: Any) -> Any:
        """Return the turn of a lane, or of an array of lanes, from 0 to ``num_lanes - 1``.

        The digits of the lane in reverse, where each prime factor of the number of lanes is the
        base of one (a van der Corput sequence, in mixed bases).
        """
        turn, block, weight = 0 * lane, self.num_lanes, 1
        for factor in self._factors:
            block //= factor
            turn = turn + lane // block % factor * weight
            weight *= factor
        return turn

    def taken(self, lane: Any, steps: Any) -> Any:
        """Return the records that a lane gives in the first `steps` steps of an epoch.

        Args:
          lane: the index of the lane, or an array or a tensor of them.
          steps: the number of steps, or an array or a tensor of them.
        """
        # The turns before the last batch's end that are this lane's, the highest turn being first.
        return (steps * self.batch_size + self.turn(lane)) // self.num_lanes

    def full_steps(self, lane: int, records: int) -> int:
        """Return the steps in which a lane with `records` records gives its whole share."""
        steps: int = ((records + 1) * self.num_lanes - 1 - self.turn(lane)) // self.batch_size
        return steps

    def steps_to_end(self, lane: int, records: int) -> int:
        """Return the steps after which a lane has given `records` records."""
        missing_turns = records * self.num_lanes - self.turn(lane)
        return max(0, -(-missing_turns // self.batch_size))
