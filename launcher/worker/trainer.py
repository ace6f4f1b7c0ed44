"""The worker process of the built-in trainer: ``python -m tenfold.launcher.worker.trainer``.

It reads job.json in TENFOLD_RUN_DIR and its place from TF_CONFIG, trains, tells the
supervisor what it is doing (see `events`), and ends at once when it is done: TensorFlow's own
teardown can linger for many seconds.

Exit status: 0 done, 1 it failed by itself, EXIT_PEER_FAILED because another worker did,
EXIT_PREEMPTED after SIGTERM, with a checkpoint saved.
"""

import json
import os
import signal
import socket
import sys
import traceback
from types import TracebackType
from typing import Any, Final, NoReturn

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job.events import EXIT_PEER_FAILED, EXIT_PREEMPTED, EventWriter
from tenfold.launcher.job.faults import WorkerFaults
from tenfold.launcher.job.job_spec import JOB_FILE, job_from_json

# TensorFlow's error types that a dead or silent peer raises in the survivors, and what marks
# the two that have other causes too.
_PEER_ERRORS: Final = {"UnavailableError", "DeadlineExceededError", "AbortedError"}
_MIXED_ERRORS: Final = {"InternalError", "CancelledError", "UnknownError"}
_PEER_WORDS: Final = ("Connection reset", "collective", "Collective", "/job:worker", "heartbeat")


def main() -> NoReturn:
    """Runs the worker and ends the process with its exit status."""
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    # A stream of its own: events do not wait in the buffer of the user's prints.
    events = EventWriter(
        os.fdopen(os.dup(1), "w", encoding="utf-8"), index, faults=WorkerFaults(os.environ)
    )
    events.enter("import")
    status = _status_of_work(events)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _status_of_work(events: EventWriter) -> int:
    try:
        return _work(events)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001  everything a model function may raise is told
        _tell(events, error)
        return EXIT_PEER_FAILED if is_peer_failure(error) else 1


def is_peer_failure(error: BaseException) -> bool:
    """Says whether `error` is what TensorFlow raises because another worker has failed."""
    name = type(error).__name__
    if name in _PEER_ERRORS:
        return True
    return name in _MIXED_ERRORS and any(word in str(error) for word in _PEER_WORDS)


def _tell(events: EventWriter, error: Exception) -> None:
    lines = traceback.format_exception(type(error), error, _beyond_our_code(error.__traceback__))
    says_all = isinstance(error, UserError | JobError)
    text = "" if says_all else "".join(lines)
    print(str(error) if says_all else text, file=sys.stderr, flush=True)
    events.send("error", type=type(error).__name__, message=str(error), traceback=text)


def _beyond_our_code(frames: TracebackType | None) -> TracebackType | None:
    """Returns the traceback from where our own code called another's; all where it did not."""
    at = frames
    while at is not None and _is_ours(at.tb_frame.f_globals.get("__name__", "")):
        at = at.tb_next
    return at or frames


def _is_ours(module: str) -> bool:
    return module == "__main__" or module.startswith("tenfold.")


def _work(events: EventWriter) -> int:
    run_dir = os.environ["TENFOLD_RUN_DIR"]
    job = open_folder(run_dir).read(JOB_FILE)
    if job is None:
        raise UserError(
            f"there is no {run_dir}/{JOB_FILE} on {socket.gethostname()}: give a --run_dir on "
            "storage that all hosts share"
        )
    spec, _ = job_from_json(job.decode())

    from tenfold.models.train_config import config_from_json
    from tenfold.models.training.loop import Preempted, train

    config = config_from_json(spec.train)
    strategy, place = _join(events)
    # TensorFlow has taken SIGTERM over when the strategy was made: it is ours again now.
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        result = train(
            config, strategy=strategy, place=place, reporter=events, stop=lambda: bool(asked)
        )
    except Preempted:
        events.send("preempted")
        return EXIT_PREEMPTED
    events.send("result", **_final(result))
    events.enter("done")
    return 0


def _join(events: EventWriter) -> tuple[Any, Any]:
    import tensorflow as tf

    from tenfold.data.reading.read_options import WorkerPlace

    events.enter("rendezvous")
    cluster = json.loads(os.environ["TF_CONFIG"])
    workers, index = len(cluster["cluster"]["worker"]), cluster["task"]["index"]
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return strategy, WorkerPlace(index, workers)


def _final(result: Any) -> dict[str, Any]:
    return {
        "epochs": result.epochs,
        "steps": result.steps,
        "metrics": result.metrics,
        "model": result.model_path,
    }


if __name__ == "__main__":
    main()
