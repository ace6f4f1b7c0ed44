"""Ports for workers, picked where nobody gives any."""

import random

import pytest

from tenfold.launcher.backends.ports import far_ports, pick_ports

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    "pick", [lambda: pick_ports("127.0.0.1", 5), lambda: far_ports(5, None)], ids=["here", "far"]
)
def test_seeded_programs_pick_different_ports(pick):
    state = random.getstate()
    try:
        random.seed(1)
        first = pick()
        random.seed(1)
        assert pick() != first
    finally:
        random.setstate(state)
