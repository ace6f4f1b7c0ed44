"""Ports for workers, picked where nobody gives any."""

import random
import socket

import pytest

from tenfold.launcher.backends.ports import far_ports, is_free, pick_ports, port_holder

pytestmark = pytest.mark.timeout(150)


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


def test_picked_ports_are_free_and_distinct():
    ports = pick_ports("127.0.0.1", 20)
    assert len(set(ports)) == 20
    assert all(is_free("127.0.0.1", port) for port in ports)
    assert not set(pick_ports("127.0.0.1", 5, avoid=ports)) & set(ports)
    with socket.create_server(("127.0.0.1", ports[0])):
        assert not is_free("127.0.0.1", ports[0])
        assert "pid" in port_holder(ports[0])
