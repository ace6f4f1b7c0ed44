"""The lease of a remote run directory; tests/gcs has more."""

from types import SimpleNamespace

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.job import lease


def test_lease_is_polled_until_it_is_void(monkeypatch):
    """However long that takes: what passes while both stand still proves nothing."""
    paused: list[float] = []
    looks: list[str] = []

    def read(name):
        looks.append(name)
        return b"{}"

    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=paused.append))
    waiting = object.__new__(lease.Lease)
    waiting._remote = SimpleNamespace(path="gs://b/run", read=read)
    waiting._wait_until_void(b"{}")
    assert (sum(paused), len(looks)) == (lease.VOID_AFTER_S, len(paused))
    with pytest.raises(UserError, match="in use"):
        waiting._wait_until_void(b"{another}")
