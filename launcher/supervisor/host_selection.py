"""Select the hosts for each start of a job: all, or fewer where some do not answer."""

import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tenfold.launcher.backends.base import Backend, Host

ANSWER_TIMEOUT_S: Final = 10.0


def worker_counts(num_workers: int, min_workers: int, *, num_lanes: int | None) -> tuple[int, ...]:
    """Return the worker counts that a job may run with, largest first.

    Args:
      num_workers: the largest count.
      min_workers: the smallest count.
      num_lanes: lanes of the shards, which every count must divide; None for a user's program,
        which may run with any count.
    """
    counts = range(num_workers, min_workers - 1, -1)
    return tuple(count for count in counts if num_lanes is None or num_lanes % count == 0)


def choose_count(available: int, counts: Sequence[int]) -> int:
    """Return the largest of `counts` that is at most `available`, 0 if there is none."""
    return max((count for count in counts if count <= available), default=0)


def hosts_that_answer(backend: Backend, hosts: Sequence[Host]) -> tuple[bool, ...]:
    """Return for each host whether a program can run on it now."""
    distinct = tuple(dict.fromkeys(hosts))
    with ThreadPoolExecutor(len(distinct)) as pool:
        answers = dict(
            zip(distinct, pool.map(lambda host: _answers(backend, host), distinct), strict=True)
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
    """Return the hosts to start on, in order; none where too few are available.

    Hosts are probed only where `counts` leaves a choice: otherwise a host that does not answer
    fails the attempt anyway.

    Args:
      backend: runs the probe.
      hosts: one per worker of the full job.
      counts: permitted numbers of workers.
      is_unavailable: whether fault injection keeps a host, by its index in `hosts`, away.
    """
    answers = hosts_that_answer(backend, hosts) if len(counts) > 1 else (True,) * len(hosts)
    available = [
        host for index, host in enumerate(hosts) if answers[index] and not is_unavailable(index)
    ]
    return tuple(available[: choose_count(len(available), counts)])
