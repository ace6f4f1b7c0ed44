"""Exact duplicates between the splits of a data set, by the fingerprints of their records."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING

from tenfold.data.format.manifest import SharedRecords

if TYPE_CHECKING:
    import numpy as np


def shared_records(fingerprints: Mapping[str, Iterable[bytes]]) -> tuple[SharedRecords, ...]:
    """Return the records that a split shares with an earlier one, for each pair that shares any.

    Takes 8 bytes of memory a record, and as much again for the largest split. Two records with
    one 64-bit fingerprint count as equal: among 10 million records, two others have one with a
    probability of 3 in a million.

    Args:
      fingerprints: for each split the fingerprints of its records, as uint64 in native byte
        order, shard by shard.
    """
    ordered = {name: _sorted(parts) for name, parts in fingerprints.items()}
    found = []
    for earlier, later in combinations(ordered, 2):
        count = _count_in(ordered[later], ordered[earlier])
        if count:
            found.append(SharedRecords(later, earlier, count))
    return tuple(found)


def _sorted(parts: Iterable[bytes]) -> "np.ndarray":
    import numpy as np

    joined = bytearray()
    for part in parts:
        joined += part
    numbers = np.frombuffer(joined, np.uint64)
    numbers.sort()  # in place: a bytearray is writable
    return numbers


def _count_in(numbers: "np.ndarray", others: "np.ndarray") -> int:
    """Return how many of the sorted `numbers` are among the sorted `others`."""
    import numpy as np

    count = 0
    for first in range(0, len(numbers), 1 << 16):  # the places of a block alone are in memory
        block = numbers[first : first + (1 << 16)]
        places = np.searchsorted(others, block)
        inside = places < len(others)
        count += int((others[places[inside]] == block[inside]).sum())
    return count
