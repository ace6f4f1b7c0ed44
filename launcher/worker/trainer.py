"""The worker process of the built-in trainer: ``python -m tenfold.launcher.worker.trainer``.

It reads its job from the file that its argument names, else from job.json in TENFOLD_RUN_DIR,
and its place from the environment. It trains, and reports its progress to the supervisor (see
`launcher.job.events`). It ends with `os._exit`, because TensorFlow's own teardown can linger for
many seconds.

Exit status: 0 done, 1 an error of its own, EXIT_PEER_FAILED the error of another worker,
EXIT_PREEMPTED stopped by SIGTERM after saving a checkpoint, EXIT_NOT_FINITE a loss or weight that
is not finite.
"""

import os
import signal
import socket
import sys
import traceback
from types import TracebackType
from typing import Any, NoReturn

from tenfold.data.errors import JobError, UserError, os_error_text
from tenfold.data.planning.cluster_task import find_task
from tenfold.data.runtime.deferred_keras import defer_unused_keras_modules
from tenfold.data.runtime.tensorflow_hooks import silence_native_stderr
from tenfold.data.runtime.tensorflow_version import require_tensorflow
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job.error_texts.peer_errors import is_peer_error
from tenfold.launcher.job.events import (
    EXIT_NOT_FINITE,
    EXIT_PEER_FAILED,
    EXIT_PREEMPTED,
    Error,
    EventWriter,
    Result,
    WorkerPreempted,
)
from tenfold.launcher.job.faults import WorkerFaults
from tenfold.launcher.job.job_spec import job_from_json
from tenfold.launcher.job.run_dir import JOB_FILE
from tenfold.launcher.worker.event_reporter import EventReporter
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.reporting.not_finite import NotFiniteError


def main(job_file: str = "") -> NoReturn:
    """Run the worker and end the process with its exit status.

    Args:
      job_file: the file with the job; "" takes job.json of the run directory.
    """
    defer_unused_keras_modules()
    task = find_task(os.environ)
    assert task is not None, "the supervisor sets the variables"
    # A stream of their own: events do not wait in the buffer of the user's prints.
    events = EventWriter(os.fdopen(os.dup(1), "w", encoding="utf-8"), task.index)
    events.enter("import")
    status = _run_to_status(events, job_file)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run_to_status(events: EventWriter, job_file: str) -> int:
    try:
        return _run(events, _read_config(job_file))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001  a model function may raise anything
        report_error(events, error)
        if isinstance(error, NotFiniteError):
            return EXIT_NOT_FINITE
        return EXIT_PEER_FAILED if is_peer_error(error) else 1


def report_error(events: EventWriter, error: Exception) -> None:
    """Print `error`, and send it: with a traceback unless its message explains it."""
    lines = traceback.format_exception(type(error), error, _skip_our_frames(error.__traceback__))
    is_explained = isinstance(error, UserError | JobError)
    text = "" if is_explained else "".join(lines)
    print(str(error) if is_explained else text, file=sys.stderr, flush=True)
    message = os_error_text(error) if isinstance(error, OSError) else str(error)
    events.send(Error(type(error).__name__, message, text))


def _skip_our_frames(frames: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame that is not ours on; all of it if all are."""
    frame = frames
    while frame is not None and _is_ours(frame.tb_frame.f_globals.get("__name__", "")):
        frame = frame.tb_next
    return frame or frames


def _is_ours(module: str) -> bool:
    return module == "__main__" or module.startswith("tenfold.")


def _run(events: EventWriter, config: TrainConfig) -> int:
    require_tensorflow()
    from tenfold.models.training import loop

    strategy, place = _join_cluster(events, config)
    # Making the strategy installs TensorFlow's own SIGTERM handler; replace it after that.
    stop_signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop_signals.append(number))
    try:
        result = loop.train(
            config,
            strategy=strategy,
            place=place,
            reporter=EventReporter(events, WorkerFaults(os.environ)),
            stop=lambda: bool(stop_signals),
            before_leaving=silence_native_stderr,
        )
    except loop.Preempted:
        events.send(WorkerPreempted())
        return EXIT_PREEMPTED
    events.send(Result(_final_figures(result)))
    events.enter("done")
    return 0


def _read_config(job_file: str) -> TrainConfig:
    where = job_file or f"{os.environ['TENFOLD_RUN_DIR']}/{JOB_FILE}"
    folder, _, name = where.rpartition("/")
    job = open_folder(folder).read(name)
    if job is None:
        raise UserError(
            f"there is no {where} on {socket.gethostname()}: give a --run_dir on storage that all "
            "hosts share"
        )
    spec, _ = job_from_json(job.decode(), where=where)
    if spec.train is None:
        raise UserError(f"{where} has no training configuration: launch into a new --run_dir")
    return spec.train


def _join_cluster(events: EventWriter, config: TrainConfig) -> tuple[Any, Any]:
    """Make the strategy, which waits for all other workers; returns it and this worker's place."""
    import tensorflow as tf

    from tenfold.data.reading.read_options import WorkerPlace
    from tenfold.models.training.collectives import communication_options

    events.enter("rendezvous")
    strategy = tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=communication_options(config)
    )
    return strategy, WorkerPlace.from_environment()


def _final_figures(result: Any) -> dict[str, Any]:
    skipped = {"skipped_steps": result.skipped} if result.skipped else {}
    words = {"ended_by": result.ended, "best_model": result.best}
    return {
        "epochs": result.epochs,
        "steps": result.steps,
        **skipped,
        "metrics": result.metrics,
        "model": result.model_path,
        **{name: text for name, text in words.items() if text},
    }


if __name__ == "__main__":
    main(*sys.argv[1:2])
