"""The hosts of a job whose list changes while it runs; the hosts are names, no machines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Host
from tenfold.launcher.job.job_spec import HostCommand
from tenfold.launcher.supervisor.hosts.job_hosts import Choice, HostPolicy, JobHosts

pytestmark = pytest.mark.timeout(120)


def hosts(names: str) -> tuple[Host, ...]:
    return tuple(Host(name, name, "python") for name in names)


@dataclass
class ListBackend:
    """Back end whose list of hosts a test changes. Hosts in `silent` do not answer."""

    listed: str
    silent: str = ""
    error: str = ""
    asked: list[str] = field(default_factory=list)

    def list_hosts(self) -> tuple[Host, ...]:
        if self.error:
            raise UserError(self.error)
        return hosts(self.listed)

    def command(self, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> HostCommand:
        self.asked.append(host.name)
        return HostCommand(("false" if host.name in self.silent else "true",))


def job(backend: ListBackend, names: str, *counts: int, regrow_after_s: float = 0.0) -> JobHosts:
    policy = HostPolicy(counts, regrow_after_s)
    return JobHosts(backend, hosts(names), policy)  # type: ignore[arg-type]


def names(choice: Choice) -> str:
    return "".join(host.name for host in choice.hosts)


def test_job_shrinks_and_uses_a_spare() -> None:
    backend = ListBackend("abcd")
    found = job(backend, "abcd", 3, 2)  # d stands by
    assert names(first := found.choose()) == "abc"
    assert first.reason == ""
    backend.silent = "bd"
    assert names(lost := found.choose()) == "ac"
    assert (lost.before, lost.reason) == (3, "b is gone")
    backend.silent = "b"
    assert names(grown := found.choose()) == "acd"
    assert (grown.before, grown.reason) == (2, "d is there")
    backend.silent = "abc"
    assert names(found.choose()) == ""


def test_list_is_read_again_at_each_start() -> None:
    backend = ListBackend("abc")
    found = job(backend, "abc", 3)
    assert names(found.choose()) == "abc"
    backend.listed, backend.silent = "acxy", "b"
    changed = found.choose()
    assert names(changed) == "acx"
    assert changed.reason == "x takes the place of b"
    assert changed.notes == ("the hosts have changed: y new",)
    backend.error = "hosts, line 3: 'node d' is not a setting"
    assert names(kept := found.choose()) == "acx"
    assert kept.notes == (f"{backend.error}: the list of hosts stays as it was",)
    assert found.choose().notes == ()  # told once


def test_hosts_left_to_others_at_launch_stay_unused() -> None:
    backend = ListBackend("abcde")
    found = job(backend, "abc", 3, 2)
    found.choose()
    backend.silent = "b"
    assert names(found.choose()) == "ac"
    assert not set("de") & set(backend.asked)
    backend.listed = "abcdef"  # f is added for this job
    assert names(found.choose()) == "acf"


def test_hosts_are_not_asked_without_a_choice() -> None:
    backend = ListBackend("abc", silent="b")
    assert names(job(backend, "abc", 3).choose()) == "abc"
    assert backend.asked == []


def test_start_with_fewer_hosts_has_a_reason() -> None:
    choice = job(ListBackend("abc", silent="b"), "abc", 3, 2).choose()
    assert (names(choice), choice.before, choice.reason) == ("ac", 3, "b is gone")


def test_watch_finds_a_host_that_is_back(until: Callable[..., None]) -> None:
    backend = ListBackend("abc", silent="b")
    found = job(backend, "abc", 3, 2, regrow_after_s=1)
    found.choose()
    backend.asked.clear()
    with found.watch() as watch:
        until(lambda: bool(backend.asked))
        assert watch.find_growth() == ""
        backend.silent = ""
        until(lambda: bool(watch.find_growth()))
        told = "b is back: saving a checkpoint to go on with 3 workers"
        assert watch.find_growth() == told
    assert set(backend.asked) == {"b"}  # hosts with workers are left alone
    assert names(found.choose()) == "abc"
    backend.asked.clear()
    with found.watch() as watch:
        assert not watch.is_watching  # nothing is missing


def test_host_that_fails_as_it_joins_is_left_out() -> None:
    backend = ListBackend("abc", silent="b")
    found = job(backend, "abc", 3, 2, regrow_after_s=1)
    found.choose()
    assert not found.leave_out(1)  # c: it has not joined later
    backend.silent = ""
    assert names(found.choose()) == "abc"
    assert not found.leave_out(0)
    assert found.leave_out(1)
    again = found.choose()
    assert (names(again), again.reason) == ("ac", "b failed before its first step and is left out")
    assert found.choose().reason == ""
    assert names(found.choose()) == "ac"


def test_number_that_the_model_refuses_is_given_up() -> None:
    backend = ListBackend("abcd")
    found = job(backend, "abcd", 4, 3, 2, regrow_after_s=1)
    assert names(found.choose()) == "abcd"
    assert not found.give_up_count()  # the number that the user asked for
    backend.silent = "b"
    assert names(found.choose()) == "acd"
    assert found.give_up_count()
    fewer = found.choose()
    assert (names(fewer), fewer.reason) == ("ac", "3 workers cannot train this model")
    assert not found.give_up_count()  # no smaller number is permitted
    backend.silent = ""
    assert names(found.choose()) == "abcd"


def test_host_that_the_job_needs_is_tried_again() -> None:
    backend = ListBackend("abcd")
    found = job(backend, "abcd", 3)
    found.choose()
    backend.silent = "b"
    assert names(found.choose()) == "acd"
    assert not found.leave_out(2)
    assert names(found.choose()) == "acd"


@pytest.mark.parametrize("regrow_after_s", [0.0, 600.0])
def test_no_watch_after_a_growth(regrow_after_s: float) -> None:
    """With 0 the job never grows; with ten minutes it does not so soon again."""
    backend = ListBackend("abc", silent="b")
    found = job(backend, "abc", 3, 2, regrow_after_s=regrow_after_s)
    found.choose()
    backend.silent = ""
    found.choose()
    backend.silent = "c"
    found.choose()
    backend.silent = ""
    with found.watch() as watch:
        assert watch.is_watching == (regrow_after_s > 0)
        assert regrow_after_s == 0 or (watch.first_in_s or 0) > 500
