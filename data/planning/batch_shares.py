"""The number of records that each lane gives to each global batch. Pure.

The records of an epoch's global batches are dealt to the lanes in turn, through all batches:
record i goes to turn i % num_lanes. So every lane gives batch_size / num_lanes records to a
batch, rounded up or down, and the rounding follows from the step and the lane alone. The lanes
that give one record more to a batch are spread over all lanes, so that workers with equally many
lanes get nearly equal parts of it.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

_GOLDEN_RATIO: Final = (1 + math.sqrt(5)) / 2


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

    def turn(self, lane: Any) -> Any:
        """Return the turn of a lane, or of an array of lanes, from 0 to ``num_lanes - 1``."""
        return lane * self._stride % self.num_lanes

    @cached_property
    def _stride(self) -> int:
        # Multiples of the golden ratio, modulo 1, are spread most evenly (Weyl's theorem on
        # equidistribution): neighbours in turn are that far apart among the lanes.
        distance = max(1, round(self.num_lanes / _GOLDEN_RATIO))
        while math.gcd(distance, self.num_lanes) != 1:
            distance -= 1
        return pow(distance, -1, self.num_lanes)

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
