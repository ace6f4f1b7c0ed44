"""Which hosts a job runs on at each start: all of them, or fewer where some are away."""

import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tenfold.launcher.backends.base import Backend, Host

ANSWER_TIMEOUT_S: Final = 10.0


def worker_counts(num_workers: int, min_workers: int, *, num_lanes: int | None) -> tuple[int, ...]:
    """Returns the worker counts that a job may run with, largest first; they divide the lanes
    (None: a user's program, for which any count will do).
    """
    counts = range(num_workers, min_workers - 1, -1)
    return tuple(count for count in counts if num_lanes is None or num_lanes % count == 0)


def choose_count(available: int, counts: Sequence[int]) -> int:
    """Returns the largest of `counts` that `available` hosts suffice for; 0 where none."""
    return max((count for count in counts if count <= available), default=0)


def hosts_that_answer(backend: Backend, hosts: Sequence[Host]) -> tuple[bool, ...]:
    """Says for each host whether a program can be run on it now."""
    different = tuple(dict.fromkeys(hosts))
    with ThreadPoolExecutor(len(different)) as pool:
        answers = dict(
            zip(different, pool.map(lambda host: _answers(backend, host), different), strict=True)
        )
    return tuple(answers[host] for host in hosts)


def _answers(backend: Backend, host: Host) -> bool:
    command = backend.command(host, (host.python, "-I", "-S", "-c", ""), {})
    try:
        done = subprocess.run(
            command.argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def select_hosts(
    backend: Backend,
    hosts: Sequence[Host],
    counts: Sequence[int],
    *,
    is_unavailable: Callable[[int], bool],
) -> tuple[Host, ...]:
    """Returns the hosts to start on, in order; none where too few are there.

    Where only one count will do nobody is asked: a host that is away shows in the attempt.
    `is_unavailable` says which of `hosts`, by number, a drill has taken away.
    """
    asked = hosts_that_answer(backend, hosts) if len(counts) > 1 else (True,) * len(hosts)
    there = [host for at, host in enumerate(hosts) if asked[at] and not is_unavailable(at)]
    return tuple(there[: choose_count(len(there), counts)])
