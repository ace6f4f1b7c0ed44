"""Which worker failed first, and which failures only follow from it. Pure.

When one worker of a MultiWorkerMirroredStrategy dies, the others soon fail too, with errors that
blame the network or each other. A failure is a consequence if the worker exits with
EXIT_PEER_FAILED or its last output reports a lost peer; the cause is the earliest of the other
failures.
"""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tenfold.data.runtime.user_code import install_hint
from tenfold.launcher.job.error_texts.peer_errors import reports_lost_peer
from tenfold.launcher.job.events import EXIT_PEER_FAILED, EXIT_PREEMPTED
from tenfold.launcher.job.job_result import Failure
from tenfold.launcher.job.worker_record import WorkerRecord, failure_text

# TensorFlow's teardown keeps a process alive for up to half a minute after its exception.
LINGER_S: Final = 60.0
STOPPED: Final = ("T", "t")
# Agents send a message every second. An agent that is silent this long while others are not is on
# an unresponsive host.
SILENT_AGENT_S: Final = 5.0
# The errors of Keras 3's `fit` under this strategy (see models/keras_fit.py), and their remedy.
_KERAS_FIT_ERRORS: Final = ("PerReplica", "Invalid reduction dimension")
_KERAS_FIT_REMEDY: Final = (
    "Keras 3 cannot do this under MultiWorkerMirroredStrategy: call "
    "tenfold.models.keras_fit.repair() before the strategy is made (docs/scripts.md)"
)

_MISSING_MODULE: Final = re.compile(r"ModuleNotFoundError: No module named '([^']+)'$")


@dataclass(frozen=True)
class Verdict:
    """The first failure and its consequences; `preempted` if a preemption was the cause."""

    first: Failure
    consequences: tuple[Failure, ...]
    preempted: bool = False


def has_failed(record: WorkerRecord) -> bool:
    """Whether a worker has failed by itself, or is about to end with an error."""
    if record.error is not None or record.lost or record.note or record.echo:
        return True
    if record.exit_code is None or record.stopped_by_us:
        return False
    return record.exit_code != 0 or left_early(record)


def left_early(record: WorkerRecord) -> bool:
    """Whether a worker that reports phases exited with 0 before the phase ``done``."""
    return record.exit_code == 0 and record.reports_phases and not record.done


def is_consequence(record: WorkerRecord) -> bool:
    """Whether a failed worker only reports a lost peer, or waited for the one that hangs."""
    if record.note or record.echo:
        return bool(record.echo)
    if record.exit_code == EXIT_PEER_FAILED:
        return True
    if record.exit_code is not None and record.exit_code < 0 and not record.stopped_by_us:
        # TensorFlow may abort because of a lost peer; other signals come from outside.
        return record.exit_code == -signal.SIGABRT and _blames_peer(record)
    return _blames_peer(record)


def _blames_peer(record: WorkerRecord) -> bool:
    error, traceback = failure_text(record)
    text = f"{error}\n{traceback[-4000:]}" if error else "\n".join(record.tail)
    return reports_lost_peer(text)


def judge(records: Sequence[WorkerRecord]) -> Verdict | None:
    """Return the verdict on one attempt's workers, None if none has failed."""
    failed = sorted((record for record in records if has_failed(record)), key=failed_at)
    if not failed:
        return None
    causes = [record for record in failed if not is_consequence(record)] or _silent_causes(records)
    first = causes[0] if causes else failed[0]
    return Verdict(
        first=_first_failure(first, records),
        consequences=_consequences(first, failed),
        preempted=_is_preempted(first),
    )


def _consequences(first: WorkerRecord, failed: Sequence[WorkerRecord]) -> tuple[Failure, ...]:
    """Return the failures of other workers; an error that all report is no consequence."""
    failures = [to_failure(record) for record in failed if record is not first]
    same = first.error
    return tuple(
        failure
        for failure in failures
        if same is None or failure.error != f"{same.type}: {same.message}"
    )


def _first_failure(first: WorkerRecord, records: Sequence[WorkerRecord]) -> Failure:
    """Return the cause as a failure; the failure of its host replaces what the worker printed."""
    failure = to_failure(first)
    host_error = find_host_error(first, records)
    if host_error and (is_consequence(first) or not has_failed(first)):
        return replace(failure, error=host_error, traceback="")
    return failure


def _silent_causes(records: Sequence[WorkerRecord]) -> list[WorkerRecord]:
    """Return the likely causes where every failed worker only reports a lost peer.

    In this order: workers stopped by a signal, on an unresponsive host or one without network,
    with a traceback but still running, or ended with 0 while the others still ran.
    """
    for is_cause in (
        _is_stopped,
        lambda record: bool(find_host_error(record, records)),
        _is_dying,
        _has_left_early,
    ):
        found = [record for record in records if is_cause(record)]
        if found:
            return found
    return []


def _is_stopped(record: WorkerRecord) -> bool:
    return not record.ended and record.state in STOPPED


def find_host_error(record: WorkerRecord, records: Sequence[WorkerRecord]) -> str:
    """Return the error of a worker's host, empty where none is known.

    The host is unresponsive, or its network link was down a short while ago. `records` are those
    of all workers, `record` included.
    """
    last_heard = max(other.agent_at for other in records)
    silent_s = last_heard - record.agent_at
    if not record.ended and record.state and silent_s >= SILENT_AGENT_S:
        return f"host unresponsive: no heartbeat for {silent_s:.0f} s"
    if record.links_down and last_heard - record.links_down_at < LINGER_S:
        return f"host lost the network: no link on {', '.join(record.links_down)}"
    return ""


def _is_dying(record: WorkerRecord) -> bool:
    caught = bool(record.traceback.error) and not record.ended
    return caught and not reports_lost_peer(record.traceback.text[-4000:])


def _has_left_early(record: WorkerRecord) -> bool:
    return record.exit_code == 0 and not record.stopped_by_us and not record.done


def _is_preempted(record: WorkerRecord) -> bool:
    return record.exit_code in (EXIT_PREEMPTED, -signal.SIGTERM) and not record.stopped_by_us


def failed_at(record: WorkerRecord) -> float:
    """Return when a worker failed, in seconds since 1970: its error counts before its exit."""
    if record.error is not None:
        return record.error_time
    printed, ended = record.traceback.time, record.exit_time
    if record.traceback.error and (record.exit_code or 0) > 0 and 0 <= ended - printed < LINGER_S:
        return printed
    return ended or record.heard_at


def to_failure(record: WorkerRecord) -> Failure:
    """Return the failure of a worker as result.json holds it."""
    error, traceback = failure_text(record)
    if record.note or record.echo:
        traceback = "\n".join(record.stack)
    return Failure(
        worker=record.index,
        time=failed_at(record),
        phase=record.phase,
        step=record.step,
        exit_code=record.exit_code,
        error=record.note or record.echo or _with_remedy(error, traceback) or describe_end(record),
        traceback=traceback,
    )


def _with_remedy(error: str, traceback: str) -> str:
    """Return `error`, with its remedy where one is known."""
    if missing := _MISSING_MODULE.match(error):
        return f"{error}; {install_hint(missing[1])}"
    is_fit = "keras/src/" in traceback and any(text in error for text in _KERAS_FIT_ERRORS)
    return f"{error}\n{_KERAS_FIT_REMEDY}" if is_fit else error


def describe_end(record: WorkerRecord) -> str:
    """Return one line on the end of a worker that has reported no error itself."""
    code = record.exit_code
    if record.lost:
        return "host or agent lost: the connection closed without an exit status"
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
