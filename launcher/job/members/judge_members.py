"""The result of a joined job from those of its members. Pure."""

from collections.abc import Mapping, Sequence

from tenfold.data.units import plural
from tenfold.launcher.job.events import EXIT_PEER_FAILED, EXIT_PREEMPTED
from tenfold.launcher.job.job_result import Failure, JobResult
from tenfold.launcher.job.members.member_files import MemberResult


def judge_members(
    members: Mapping[int, MemberResult], num_workers: int, *, signal: int | None = None
) -> JobResult:
    """Return the job's result.

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
        state=_state(failures, cancelled=cancelled, is_chief_known=0 in members),
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


def _state(failures: Sequence[Failure], *, cancelled: bool, is_chief_known: bool) -> str:
    if failures:
        return "failed"
    if cancelled:
        return "cancelled"
    return "succeeded" if is_chief_known else "failed"  # the chief was lost with its files


def _is_consequence(member: MemberResult) -> bool:
    return member.status in (EXIT_PEER_FAILED, EXIT_PREEMPTED)
