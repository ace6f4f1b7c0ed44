"""Exact duplicates between the splits of a data set, by the fingerprints of their records."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Final

from tenfold.data.format.manifest import SharedRecords

if TYPE_CHECKING:
    import numpy as np

# Up to so many records, all splits together are compared without numpy.
_MAX_SMALL: Final = 1 << 16


def shared_records(fingerprints: Mapping[str, Iterable[bytes]]) -> tuple[SharedRecords, ...]:
    """Return the records that a split shares with an earlier one, for each pair that shares any.

    Takes 8 bytes of memory a record, and as much again for the largest split. Two records with
    one 64-bit fingerprint count as equal: among 10 million records, two others have one with a
    probability of 3 in a million.

    Args:
      fingerprints: for each split the fingerprints of its records, as uint64 in native byte
        order, shard by shard.
    """
    joined = {name: _joined(parts) for name, parts in fingerprints.items()}
    if sum(map(len, joined.values())) <= _MAX_SMALL * 8:
        counts = _count_small(joined)
    else:
        counts = _count_large(joined)
    return tuple(
        SharedRecords(later, earlier, count) for (earlier, later), count in counts if count
    )


# Pairs of splits, each with the number of records of the later one that are in the earlier one.
Counts = Iterator[tuple[tuple[str, str], int]]


def _count_small(joined: Mapping[str, bytearray]) -> Counts:
    """Count without numpy, whose import takes longer than this for a few records."""
    numbers = {name: memoryview(data).cast("Q").tolist() for name, data in joined.items()}
    distinct = {name: set(found) for name, found in numbers.items()}
    for earlier, later in combinations(numbers, 2):
        yield (earlier, later), sum(number in distinct[earlier] for number in numbers[later])


def _count_large(joined: Mapping[str, bytearray]) -> Counts:
    ordered = {name: _sorted(data) for name, data in joined.items()}
    for earlier, later in combinations(ordered, 2):
        yield (earlier, later), _count_in(ordered[later], ordered[earlier])


def _joined(parts: Iterable[bytes]) -> bytearray:
    joined = bytearray()
    for part in parts:
        joined += part
    return joined


def _sorted(data: bytearray) -> "np.ndarray":
    """Return the fingerprints in ascending order; sorts `data`."""
    import numpy as np

    numbers = np.frombuffer(data, np.uint64)
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
