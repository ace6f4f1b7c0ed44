"""Hosts for each start: which are taken, how a change is told, when a job may grow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.launcher.backends.base import Host
from tenfold.launcher.supervisor.hosts.host_selection import (
    MAX_LOOK_INTERVAL_S,
    MIN_LOOK_INTERVAL_S,
    Slot,
    choose_count,
    describe_change,
    describe_list_change,
    growth_allowed_in_s,
    look_interval_s,
    select_slots,
    slots_of,
    worker_counts,
)


def slots(names: str) -> tuple[Slot, ...]:
    """One slot per letter: "aab" is two slots of host a, one of host b."""
    return slots_of([Host(name, name, "python") for name in names])


def names(chosen: tuple[Slot, ...]) -> str:
    return "".join(slot.host.name for slot in chosen)


@pytest.mark.parametrize(
    ("num_workers", "least", "lanes", "counts"),
    [
        (4, 4, 8, (4,)),
        (4, 1, 4, (4, 3, 2, 1)),
        (6, 2, 12, (6, 5, 4, 3, 2)),
        (3, 2, None, (3, 2)),
    ],
)
def test_worker_counts_have_a_lane_each(num_workers, least, lanes, counts):
    assert worker_counts(num_workers, least, num_lanes=lanes) == counts
    assert choose_count(num_workers - 1, counts) == max(counts[1:], default=0)
    assert choose_count(0, counts) == 0


@pytest.mark.parametrize(
    ("up", "current", "counts", "chosen"),
    [
        ("abcd", "abcd", (4, 3, 2), "abcd"),
        ("acd", "abcd", (4, 3, 2), "acd"),  # one host less
        ("abcd", "acd", (4, 3, 2), "abcd"),  # grown back
        ("acd", "abcd", (4, 2, 1), "ac"),  # three are not permitted
        ("acde", "abcd", (4,), "acde"),  # a spare host
        ("abcde", "acde", (4,), "acde"),  # the spare keeps its place
        ("d", "abcd", (4, 3, 2), ""),  # too few
        ("", "", (1,), ""),
        ("aabb", "aab", (3,), "aab"),  # slots of one host are told apart
    ],
)
def test_hosts_in_use_are_taken_first(up, current, counts, chosen):
    assert names(select_slots(slots(up), slots(current), counts)) == chosen


@given(
    up=st.lists(st.sampled_from("abcdefgh"), unique=True),
    current=st.lists(st.sampled_from("abcdefgh"), unique=True),
    least=st.integers(1, 4),
)
def test_selection_is_in_order_and_permitted(up, current, least):
    chosen = select_slots(slots("".join(up)), slots("".join(current)), range(4, least - 1, -1))
    assert len(chosen) == (min(4, len(up)) if len(up) >= least else 0)
    assert [up.index(name) for name in names(chosen)] == sorted(map(up.index, names(chosen)))
    kept = set(up) & set(current)
    assert len(kept & set(names(chosen))) == min(len(kept), len(chosen))


@pytest.mark.parametrize(
    ("before", "after", "up", "text"),
    [
        ("abcd", "abcd", "abcd", ""),
        ("abcd", "acd", "acd", "b is gone"),
        ("abcd", "ad", "ad", "b and c are gone"),
        ("acd", "abcd", "abcd", "b is back"),
        ("abc", "abcx", "abcx", "x is there"),
        ("ab", "abdx", "abdx", "d is back; x is there"),
        ("abcd", "acdx", "acdx", "x takes the place of b"),
        ("abcd", "adxy", "adxy", "x and y take the place of b and c"),
        ("abcd", "ac", "acd", "b is gone; 2 is the next permitted number of workers"),
        ("aab", "ab", "ab", "a slot of a is gone"),
    ],
)
def test_change_of_hosts_has_a_reason(before, after, up, text):
    known = slots("abcd")
    told = describe_change(slots(before), slots(after), up=slots(up), known=known)
    assert told == text


@pytest.mark.parametrize(
    ("before", "after", "told", "text"),
    [
        ("abc", "abc", "", ""),
        ("abc", "acx", "", "the hosts have changed: b gone; x new"),
        ("ac", "abc", "", "the hosts have changed: b back"),
        ("abc", "acx", "b", "the hosts have changed: x new"),
        ("abc", "acx", "bx", ""),
    ],
)
def test_change_of_list_is_told_once(before, after, told, text):
    first = slots("abc")
    found = describe_list_change(slots(before), slots(after), first=first, told=slots(told))
    assert found == text


@pytest.mark.parametrize(
    ("regrow_after_s", "last_growth_at", "now", "wait_s"),
    [
        (0.0, None, 50.0, None),  # never
        (600.0, None, 50.0, 0.0),  # it has not grown yet
        (600.0, 40.0, 50.0, 590.0),
        (600.0, 40.0, 700.0, 0.0),
    ],
)
def test_job_grows_once_in_a_time(regrow_after_s, last_growth_at, now, wait_s):
    assert growth_allowed_in_s(regrow_after_s, last_growth_at, now) == wait_s


def test_hosts_are_not_looked_at_too_often():
    assert look_interval_s(600) == MAX_LOOK_INTERVAL_S
    assert look_interval_s(0.1) == MIN_LOOK_INTERVAL_S
    assert look_interval_s(50) == 5
