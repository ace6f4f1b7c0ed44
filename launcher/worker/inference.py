"""The worker process of `tenfold evaluate` and `tenfold predict`.

``python -m tenfold.launcher.worker.inference CONFIG`` gets its configuration as JSON and its place
from the environment, and reports its progress to the supervisor as the trainer does. Workers of an
evaluation are joined by a strategy; workers of a prediction do not know of each other.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from tenfold.data.errors import JobError, UserError
from tenfold.data.planning.cluster_task import find_task
from tenfold.data.reading.read_options import WorkerPlace
from tenfold.data.runtime.deferred_keras import defer_unused_keras_modules
from tenfold.data.runtime.tensorflow_version import require_tensorflow
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.units import plural
from tenfold.launcher.job.error_texts.peer_errors import is_peer_error
from tenfold.launcher.job.events import EXIT_PEER_FAILED, Epoch, EventWriter, Result, Step
from tenfold.launcher.job.faults import WorkerFaults
from tenfold.launcher.job.job_spec import job_from_json
from tenfold.launcher.job.run_dir import (
    CHECKPOINTS_FOLDER,
    EVALUATIONS_FILE,
    JOB_FILE,
    RESULT_FILE,
)
from tenfold.launcher.worker.trainer import report_error
from tenfold.models.inference.inference_config import (
    EVALUATE,
    InferenceConfig,
    inference_config_from_json,
)
from tenfold.models.train_config import TrainConfig

if TYPE_CHECKING:
    from tenfold.models.inference.evaluator import EvaluationResult, Evaluator


def main(config: str) -> NoReturn:
    """Run the worker and end the process with its exit status."""
    defer_unused_keras_modules()
    task = find_task(os.environ)
    assert task is not None, "the supervisor sets the variables"
    # A stream of their own: events do not wait in the buffer of the user's prints.
    events = EventWriter(os.fdopen(os.dup(1), "w", encoding="utf-8"), task.index)
    events.enter("import")
    try:
        _run(events, inference_config_from_json(config))
        status = 0
    except Exception as error:  # noqa: BLE001  a model function may raise anything
        report_error(events, error)
        status = EXIT_PEER_FAILED if is_peer_error(error) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # TensorFlow's own teardown can linger for many seconds


class _Reporter:
    """Implements `models.inference.progress.InferenceReporter` on the event stream."""

    def __init__(self, events: EventWriter, num_workers: int) -> None:
        self.enter = events.enter
        self._events = events
        self._faults = WorkerFaults(os.environ)
        self._num_workers = num_workers
        self._began = time.monotonic()

    def step(self, step: int, total_steps: int, records: int) -> None:
        """Report a step, then carry out the faults that are due at it."""
        rate = self._num_workers * records / max(1e-9, time.monotonic() - self._began)
        self._events.send(Step(step=step, total_steps=total_steps, records_per_s=rate))
        self._faults.strike(step)
        self._faults.block_until_killed(step)


def _run(events: EventWriter, config: InferenceConfig) -> None:
    require_tensorflow()
    manifest = read_manifest(config.shards)
    place = WorkerPlace.from_environment()
    reporter = _Reporter(events, place.num_workers)
    from tenfold.models.inference.load_model import model_without_weights, read_model_file

    read = model_without_weights if config.follow else read_model_file
    file = read(config.model, read_train_config)
    if config.task == EVALUATE:
        import tensorflow as tf

        from tenfold.models.inference.evaluator import Evaluator

        events.enter("rendezvous")
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        events.enter("build")
        evaluator = Evaluator(
            config, manifest, file, strategy=strategy, place=place, reporter=reporter
        )
        events.enter("evaluation")
        if config.follow:
            figures = _follow(events, config, evaluator, place)
        else:
            figures = {"model": file.path, **_figures(evaluator.evaluate())}
    else:
        from tenfold.models.inference.predictor import predict

        events.enter("build")
        predict(config, manifest, file, place=place, reporter=reporter)
        # The job succeeds when all workers have, and then all files exist.
        split = manifest.split(config.split)
        figures = {
            "model": file.path,
            "predicted": plural(split.num_records, "record"),
            "files": len(split.shards),
            "output": config.output,
        }
    events.send(Result(figures))
    events.enter("done")


def _figures(found: "EvaluationResult") -> dict[str, Any]:
    return {
        "loss": found.loss,
        "metrics": found.metrics,
        "receipt": found.receipt.to_json(),
        "read": found.receipt.sentence(),
    }


def _follow(
    events: EventWriter, config: InferenceConfig, evaluator: "Evaluator", place: WorkerPlace
) -> dict[str, Any]:
    """Evaluate the checkpoints of a training until it ends; return the figures of the best."""
    from tenfold.models.inference.follow import EvaluatedCheckpoint, follow

    run_dir = open_folder(config.model)
    lines: list[str] = []

    def tell(found: EvaluatedCheckpoint) -> None:
        if not place.is_chief:
            return
        position, result = found.position, found.result
        line = {**asdict(position), "loss": result.loss, "metrics": result.metrics}
        lines.append(json.dumps(line) + "\n")
        own = open_folder(os.environ["TENFOLD_RUN_DIR"])
        own.write(EVALUATIONS_FILE, "".join(lines).encode())
        sentence = (
            f"the checkpoint after {position.epoch} epochs and {plural(position.step, 'step')}"
        )
        events.send(Epoch(loss=result.loss, metrics=result.metrics, sentences=(sentence,)))

    results = follow(
        evaluator,
        open_folder(f"{config.model}/{CHECKPOINTS_FOLDER}"),
        is_chief=place.is_chief,
        has_ended=lambda: run_dir.read(RESULT_FILE) is not None,
        on_result=tell,
    )
    if not results:
        raise JobError(f"run directory '{config.model}' ended without a checkpoint")
    best = min(results, key=lambda found: found.result.loss)
    return {
        "checkpoints": len(results),
        "best_epochs": best.position.epoch,
        "best_step": best.position.step,
        **_figures(best.result),
    }


def read_train_config(run_dir: str) -> TrainConfig | None:
    """Return the configuration of the training in a run directory; None where there is none."""
    text = open_folder(run_dir).read(JOB_FILE)
    if text is None:
        return None
    try:
        return job_from_json(text.decode(), where=f"{run_dir}/{JOB_FILE}")[0].train
    except UnicodeDecodeError as error:
        raise UserError(f"{run_dir}/{JOB_FILE} is not a job file") from error


if __name__ == "__main__":
    main(sys.argv[1])
