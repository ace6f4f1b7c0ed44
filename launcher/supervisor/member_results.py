"""The results of a joined job's members, and the job's result from them."""

import time
from collections.abc import Mapping
from typing import Final

from tenfold.data.storage.folder import Folder, is_url
from tenfold.data.units import plural
from tenfold.launcher.job.events import EXIT_PEER_FAILED, EXIT_PREEMPTED
from tenfold.launcher.job.job_result import JobResult
from tenfold.launcher.job.member_files import (
    Introduction,
    MemberResult,
    introduction_file,
    member_result_file,
    read_value,
)
from tenfold.launcher.supervisor.meeting import LOCAL_POLL_S, REMOTE_POLL_S

# How long the chief waits at its end for the results of the other members. TensorFlow tells a
# worker of a lost peer after up to 20 s, but the chief should not outlive a platform's grace.
COLLECT_S: Final = 10.0


def remove_results(folder: Folder, num_workers: int) -> None:
    """Remove the results that the members of an earlier start have left."""
    for index in range(num_workers):
        folder.remove(member_result_file(index))


def collect_results(
    folder: Folder, own: MemberResult, *, num_workers: int, timeout_s: float = COLLECT_S
) -> dict[int, MemberResult]:
    """Return the results by worker index, of all members that end within `timeout_s`.

    Args:
      folder: the run directory.
      own: the result of the calling member.
      num_workers: the number of members.
      timeout_s: how long to wait.
    """
    found = {own.worker: own}
    # A member whose introduction is not here writes into a folder that is not shared.
    waited = {
        index
        for index in set(range(num_workers)) - set(found)
        if read_value(folder, introduction_file(index), Introduction) is not None
    }
    until = time.monotonic() + timeout_s
    while waited:
        for index in sorted(waited):
            result = read_value(folder, member_result_file(index), MemberResult)
            if result is not None:
                found[index] = result
        waited -= set(found)
        if not waited or time.monotonic() >= until:
            break
        time.sleep(REMOTE_POLL_S if is_url(folder.path) else LOCAL_POLL_S)
    return found


def judge_members(
    members: Mapping[int, MemberResult], num_workers: int, *, signal: int | None = None
) -> JobResult:
    """Return the job's result. Pure.

    The first failure is the earliest that is no consequence. Hosts' clocks differ, so between
    two causes on different hosts that order is uncertain.

    Args:
      members: the results that are known, by worker index; the chief's included.
      num_workers: the number of workers.
      signal: the signal by which the chief was asked to stop.
    """
    failed = [member for member in members.values() if member.failure is not None]
    failed.sort(key=lambda member: (_is_consequence(member), member.failure.time))  # type: ignore[union-attr]
    failures = [member.failure for member in failed if member.failure is not None]
    unknown = [index for index in range(num_workers) if index not in members]
    notes = []
    if unknown:
        names = ", ".join(map(str, unknown))
        notes.append(f"no result from {plural(len(unknown), 'worker')}: {names}")
    cancelled = any(member.cancelled for member in members.values())
    return JobResult(
        state="failed" if failures else "cancelled" if cancelled else "succeeded",
        exit_codes=tuple(
            members[index].exit_code if index in members else None for index in range(num_workers)
        ),
        first_failure=failures[0] if failures else None,
        consequences=tuple(failures[1:]),
        seconds=max(member.seconds for member in members.values()),
        final=members[0].final if 0 in members else {},
        signal=signal if cancelled else None,
        notes=tuple(notes),
    )


def _is_consequence(member: MemberResult) -> bool:
    return member.status in (EXIT_PEER_FAILED, EXIT_PREEMPTED)
