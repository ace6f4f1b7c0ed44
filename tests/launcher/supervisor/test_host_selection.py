"""Permitted numbers of workers."""

import pytest

from tenfold.launcher.supervisor.host_selection import choose_count, worker_counts


@pytest.mark.parametrize(
    ("num_workers", "least", "lanes", "counts"),
    [
        (4, 4, 8, (4,)),
        (4, 1, 4, (4, 2, 1)),
        (6, 2, 12, (6, 4, 3, 2)),
        (3, 2, None, (3, 2)),
    ],
)
def test_worker_counts_divide_the_lanes(num_workers, least, lanes, counts):
    assert worker_counts(num_workers, least, num_lanes=lanes) == counts
    assert choose_count(num_workers - 1, counts) == max(counts[1:], default=0)
    assert choose_count(0, counts) == 0
