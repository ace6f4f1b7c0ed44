"""Select the hosts for each start of a job, from those that are listed and up. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.launcher.backends.base import Host

# A growth stops all workers, so the hosts are looked at no more often than it can be of use.
MIN_LOOK_INTERVAL_S: Final = 1.0
MAX_LOOK_INTERVAL_S: Final = 10.0


@dataclass(frozen=True)
class Slot:
    """Room for one worker on a host; `number` counts the slots of one host from 0."""

    host: Host
    number: int = 0


def slots_of(hosts: Sequence[Host]) -> tuple[Slot, ...]:
    """Return a slot for each entry of `hosts`, in order; a host may occur several times."""
    used: dict[Host, int] = {}
    slots = []
    for host in hosts:
        slots.append(Slot(host, used.get(host, 0)))
        used[host] = slots[-1].number + 1
    return tuple(slots)


def worker_counts(num_workers: int, min_workers: int, *, num_lanes: int | None) -> tuple[int, ...]:
    """Return the worker counts that a job may run with, largest first.

    Args:
      num_workers: the largest count.
      min_workers: the smallest count.
      num_lanes: lanes of the shards, of which each worker needs one; None for a user's program,
        which may run with any count.
    """
    counts = range(num_workers, min_workers - 1, -1)
    return tuple(count for count in counts if num_lanes is None or count <= num_lanes)


def choose_count(available: int, counts: Sequence[int]) -> int:
    """Return the largest of `counts` that is at most `available`, 0 if there is none."""
    return max((count for count in counts if count <= available), default=0)


def select_slots(
    up: Sequence[Slot], current: Collection[Slot], counts: Sequence[int]
) -> tuple[Slot, ...]:
    """Return the slots to start on, in the order of `up`; none where too few are up.

    Slots in use come first: a host that has just worked is a better choice than one that has just
    come back.

    Args:
      up: the slots that can run a worker, in the order of the list of hosts.
      current: the slots in use until now.
      counts: the permitted numbers of workers.
    """
    preferred = sorted(up, key=lambda slot: slot not in current)  # stable
    chosen = preferred[: choose_count(len(up), counts)]
    return tuple(slot for slot in up if slot in chosen)


def describe_change(
    before: Collection[Slot],
    after: Collection[Slot],
    *,
    up: Collection[Slot],
    known: Collection[Slot],
) -> str:
    """Return why the slots of a job change, "" if they do not.

    Args:
      before: the slots until now.
      after: the slots from now on.
      up: the slots that can run a worker.
      known: all slots that the job has used before.
    """
    away = [slot for slot in before if slot not in up]
    joined = [slot for slot in after if slot not in before]
    if away and joined:
        takes = f"{_names(joined, before)} {_verb(joined, 'takes', 'take')} the place of"
        return f"{takes} {_names(away, after)}"
    parts = []
    if away:
        parts.append(f"{_names(away, after)} {_verb(away, 'is', 'are')} gone")
    for group, word in (
        ([slot for slot in joined if slot in known], "back"),
        ([slot for slot in joined if slot not in known], "there"),
    ):
        if group:
            parts.append(f"{_names(group, before)} {_verb(group, 'is', 'are')} {word}")
    unused = len([slot for slot in before if slot in up and slot not in after])
    if unused:
        parts.append(f"{len(after)} is the next permitted number of workers")
    return "; ".join(parts)


def _names(slots: Sequence[Slot], others: Collection[Slot]) -> str:
    """Return the names of hosts; a host that also has other slots is "a slot of NAME"."""
    shared = {slot.host.name for slot in others if slot not in slots}
    names = dict.fromkeys(slot.host.name for slot in slots)
    *first, last = [f"a slot of {name}" if name in shared else name for name in names]
    return f"{', '.join(first)} and {last}" if first else last


def _verb(slots: Sequence[Slot], one: str, many: str) -> str:
    return one if len({slot.host.name for slot in slots}) == 1 else many


def describe_list_change(
    before: Sequence[Slot],
    after: Sequence[Slot],
    *,
    first: Collection[Slot],
    told: Collection[Slot],
) -> str:
    """Return how the list of hosts has changed, "" if it has not.

    Args:
      before: the slots listed before.
      after: the slots listed now.
      first: the slots listed at the launch: a host among them that appears is back, not new.
      told: slots that another message names.
    """
    gone = _unique(slot.host.name for slot in before if slot not in (*after, *told))
    come = [slot for slot in after if slot not in (*before, *told)]
    back = _unique(slot.host.name for slot in come if slot in first)
    new = _unique(slot.host.name for slot in come if slot not in first)
    parts = [
        f"{', '.join(names)} {words}"
        for names, words in ((gone, "gone"), (back, "back"), (new, "new"))
        if names
    ]
    return f"the hosts have changed: {'; '.join(parts)}" if parts else ""


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def look_interval_s(regrow_after_s: float) -> float:
    """Return the seconds between two looks at missing hosts."""
    return min(MAX_LOOK_INTERVAL_S, max(MIN_LOOK_INTERVAL_S, regrow_after_s / 10))


def growth_allowed_in_s(
    regrow_after_s: float, last_growth_at: float | None, now: float
) -> float | None:
    """Return in how many seconds the job may grow, None if it may not grow at all.

    Args:
      regrow_after_s: the shortest time between two growths; 0: never grow.
      last_growth_at: when the job has grown last, None if it has not.
      now: the time on the same clock.
    """
    if not regrow_after_s:
        return None
    if last_growth_at is None:
        return 0.0
    return max(0.0, last_growth_at + regrow_after_s - now)
