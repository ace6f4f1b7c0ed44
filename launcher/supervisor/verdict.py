"""Which worker failed first, and which only say so because it did. Pure.

When one worker of a MultiWorkerMirroredStrategy dies, the others soon fail too, with
messages that blame the network or each other. A worker is taken for a consequence when it
exits with EXIT_PEER_FAILED or its own last words are those of a lost peer; the cause is the
earliest of the others.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tenfold.launcher.job.events import EXIT_PEER_FAILED, EXIT_PREEMPTED
from tenfold.launcher.job.job_result import Failure
from tenfold.launcher.job.peer_errors import reports_lost_peer
from tenfold.launcher.job.worker_record import WorkerRecord, failure_text

# TensorFlow's teardown keeps a process alive for up to half a minute after its exception.
LINGER_S: Final = 60.0
STOPPED: Final = ("T", "t")
# Agents speak once a second. One that does not, while others do, is on a host that stands still.
SILENT_AGENT_S: Final = 5.0


@dataclass(frozen=True)
class Verdict:
    """The first failure and what followed from it."""

    first: Failure
    consequences: tuple[Failure, ...]
    preempted: bool = False


def has_failed(record: WorkerRecord) -> bool:
    """Says whether a worker ended badly by itself, or is about to."""
    if record.error is not None or record.lost or record.note or record.echo:
        return True
    if record.exit_code is None or record.stopped_by_us:
        return False
    return record.exit_code != 0 or left_early(record)


def left_early(record: WorkerRecord) -> bool:
    """Says whether a worker that reports phases exited with 0 before it was done."""
    return record.exit_code == 0 and record.reports_phases and not record.done


def is_consequence(record: WorkerRecord) -> bool:
    """Says whether a failed worker's own words blame a peer."""
    if record.note or record.echo:
        return bool(record.echo)
    if record.exit_code == EXIT_PEER_FAILED:
        return True
    if record.exit_code is not None and record.exit_code < 0 and not record.stopped_by_us:
        # An abort may be TensorFlow's reaction to a lost peer; other signals come from outside.
        return record.exit_code == -signal.SIGABRT and _blames_peer(record)
    return _blames_peer(record)


def _blames_peer(record: WorkerRecord) -> bool:
    error, traceback = failure_text(record)
    words = f"{error}\n{traceback[-4000:]}" if error else "\n".join(record.tail)
    return reports_lost_peer(words)


def judge(records: Sequence[WorkerRecord]) -> Verdict | None:
    """Returns the verdict over one attempt's workers; None where none has failed."""
    failed = sorted((record for record in records if has_failed(record)), key=failed_at)
    if not failed:
        return None
    causes = [record for record in failed if not is_consequence(record)] or _silent_causes(records)
    first = causes[0] if causes else failed[0]
    return Verdict(
        first=_first_failure(first, records),
        consequences=tuple(to_failure(record) for record in failed if record is not first),
        preempted=_is_preempted(first),
    )


def _first_failure(first: WorkerRecord, records: Sequence[WorkerRecord]) -> Failure:
    """Returns the cause; a worker whose host failed has no words of its own for that."""
    failure = to_failure(first)
    trouble = host_trouble(first, records)
    if trouble and (is_consequence(first) or not has_failed(first)):
        return replace(failure, error=trouble, traceback="")
    return failure


def _silent_causes(records: Sequence[WorkerRecord]) -> list[WorkerRecord]:
    """Workers that nobody heard fail though all others blame a peer: stopped by a signal, on a
    host that stands still or has lost its network, caught in a traceback but not yet gone, or
    gone with 0 while the others still ran.
    """
    for is_cause in (
        _is_stopped,
        lambda record: bool(host_trouble(record, records)),
        _is_dying,
        _is_gone_quietly,
    ):
        found = [record for record in records if is_cause(record)]
        if found:
            return found
    return []


def _is_stopped(record: WorkerRecord) -> bool:
    return not record.ended and record.state in STOPPED


def host_trouble(record: WorkerRecord, records: Sequence[WorkerRecord]) -> str:
    """Returns what is wrong with the host of one of `records`: it stands still, or its network
    cable was out a short while ago. Empty where nothing is known.
    """
    last_heard = max(other.agent_at for other in records)
    silent_s = last_heard - record.agent_at
    if not record.ended and record.state and silent_s >= SILENT_AGENT_S:
        return f"its host stands still: not a word from its agent for {silent_s:.0f} s"
    if record.links_down and last_heard - record.links_down_at < LINGER_S:
        return f"its host lost the network: {', '.join(record.links_down)} had no cable"
    return ""


def _is_dying(record: WorkerRecord) -> bool:
    caught = bool(record.traceback.error) and not record.ended
    return caught and not reports_lost_peer(record.traceback.text[-4000:])


def _is_gone_quietly(record: WorkerRecord) -> bool:
    return record.exit_code == 0 and not record.stopped_by_us and not record.done


def _is_preempted(record: WorkerRecord) -> bool:
    return record.exit_code in (EXIT_PREEMPTED, -signal.SIGTERM) and not record.stopped_by_us


def failed_at(record: WorkerRecord) -> float:
    """Returns when a worker failed, in seconds since 1970: its words count before its exit."""
    if record.error is not None:
        return record.error_time
    printed, ended = record.traceback.time, record.exit_time
    if record.traceback.error and (record.exit_code or 0) > 0 and 0 <= ended - printed < LINGER_S:
        return printed
    return ended or record.heard_at


def to_failure(record: WorkerRecord) -> Failure:
    """Returns how `record`'s worker ended, as it is reported."""
    error, traceback = failure_text(record)
    if record.note or record.echo:
        traceback = "\n".join(record.stack)
    return Failure(
        worker=record.index,
        time=failed_at(record),
        phase=record.phase,
        step=record.step,
        exit_code=record.exit_code,
        error=record.note or record.echo or error or describe_end(record),
        traceback=traceback,
    )


def describe_end(record: WorkerRecord) -> str:
    """Returns one line on how a worker ended, for one that said nothing of it itself."""
    code = record.exit_code
    if record.lost:
        return "its host or its agent went away without a word"
    if code is None:
        return "stopped by a signal (SIGSTOP)" if _is_stopped(record) else "failed"
    if code < 0:
        return _describe_signal(-code, record.oom)
    if code == 0:
        return "exited with 0 before it was done, while the others still ran"
    return f"exited with {code}"


def _describe_signal(number: int, oom: bool) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if oom:
        return (
            f"killed by {name}: the kernel's out-of-memory killer struck on its host at that "
            "time; lower --global_batch_size or --shuffle_buffer, or take a larger machine"
        )
    return f"killed by {name}"
