"""The training run: epochs of steps, checkpoints, evaluation, the saved model."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tenfold.data.reading.read_errors import explain_errors
from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.callbacks import callback_list, load_callbacks
from tenfold.models.training.reporter import Reporter
from tenfold.models.training.run_log import MODEL_NAME, RunLog
from tenfold.models.training.session import Session
from tenfold.models.training.steps import StepsResult


class Preempted(Exception):
    """The run was asked to stop, has saved a checkpoint and can go on from there."""


@dataclass(frozen=True)
class TrainResult:
    """What a whole run gave: the last epoch's metrics, and where the model lies."""

    epochs: int
    steps: int
    metrics: dict[str, float]
    model_path: str


def train(
    config: TrainConfig,
    *,
    strategy: tf.distribute.Strategy,
    place: WorkerPlace,
    reporter: Reporter,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Trains as `config` says, going on from the newest checkpoint of its run directory.

    Called on every worker. `stop` is asked between calls of steps; where it says yes on any
    worker, all save a checkpoint and stop.

    Raises:
      Preempted: the run was stopped and a checkpoint saved.
      UserError: the shards, the model and the numbers do not fit.
      JobError: a record cannot be read, or a shard cannot be fetched.
    """
    reporter.enter("build")
    session = Session(config, strategy=strategy, place=place)
    resumed = session.restore()
    run = _Run(session, reporter, stop)
    if resumed:
        reporter.send("resumed", epoch=session.state.position.epoch, step=session.steps_done)
    with explain_errors():
        return run.to_the_end()


class _Run:
    def __init__(self, session: Session, reporter: Reporter, stop: Callable[[], bool]) -> None:
        self.session = session
        self.config = session.config
        self.reporter = reporter
        self.stop = stop
        self.metrics: dict[str, float] = {}
        self.first_call = True
        chief = session.place.is_chief
        self.callbacks = callback_list(
            session.model,
            load_callbacks(self.config.callbacks, working_dir=self.config.working_dir),
            epochs=self.config.epochs,
            steps=session.shards.steps_per_epoch,
        )
        self.log = RunLog(self.config.run_dir, steps_done=session.steps_done) if chief else None

    def to_the_end(self) -> TrainResult:
        session = self.session
        session.start_reading()
        self.reporter.enter("first_step")
        self.callbacks.on_train_begin()
        while session.state.position.epoch < self.config.epochs and not self._told_to_end():
            self._epoch()
        self.callbacks.on_train_end(self.metrics)
        self.reporter.enter("saving")
        path = self._save_model()
        return TrainResult(session.state.position.epoch, session.steps_done, self.metrics, path)

    def _told_to_end(self) -> bool:
        """Whether a callback has ended the training, on any worker."""
        return self.session.any_worker(bool(self.session.model.stop_training))

    def _epoch(self) -> None:
        session = self.session
        self.callbacks.on_epoch_begin(session.state.position.epoch)
        begun, wait_s, first = time.monotonic(), 0.0, session.state.position.step
        while session.state.position.step < session.shards.steps_per_epoch:
            wait_s += self._call_of_steps()
        seconds = max(time.monotonic() - begun, 1e-9)
        steps = session.shards.steps_per_epoch - first
        epoch = session.state.position.epoch
        loss, metrics, receipt = session.finish_epoch()
        line: dict[str, Any] = {
            "epoch": epoch,
            "step": session.steps_done,
            "loss": loss,
            "seconds": seconds,
            "records_per_s": steps * self.config.global_batch_size / seconds,
            "wait_share": min(1.0, wait_s / seconds),
            "receipt": receipt.to_json(),
        }
        bottleneck = session.bottleneck()
        line["bottleneck"] = bottleneck.to_json()
        self._evaluate(line, metrics)
        self.callbacks.on_epoch_end(epoch, {"loss": loss, **self.metrics})
        self._tell_epoch(line, [receipt.sentence(), bottleneck.sentence()])
        self._checkpoint()

    def _call_of_steps(self) -> float:
        """Runs as many steps as fit in one call; returns the seconds that input was waited for."""
        session = self.session
        begun, first = time.monotonic(), session.steps_done
        self.callbacks.on_train_batch_begin(session.state.position.step)
        result = session.run_steps(
            self._steps_until_next_stop(), stop=self.stop(), save=self._time_to_save()
        )
        self._tell_steps(result, first, max(time.monotonic() - begun, 1e-9))
        logs = {"loss": float(result.losses[-1]), **result.metrics}
        self.callbacks.on_train_batch_end(session.state.position.step - 1, logs)
        if self.first_call:
            self.first_call = False
            self.reporter.enter("training")
        every = self.config.checkpoint_every_steps
        at_end = session.state.position.step == session.shards.steps_per_epoch
        if not at_end and (result.save or (every and session.steps_done % every == 0)):
            self._checkpoint()
        if result.stop:
            self._stop_here(at_end)
        return result.wait_s

    def _steps_until_next_stop(self) -> int:
        """Steps of the next call: as many as a call holds, a checkpoint or the epoch allows."""
        session, config = self.session, self.config
        steps = session.shards.steps_per_epoch - session.state.position.step
        if config.checkpoint_every_steps:
            every = config.checkpoint_every_steps
            steps = min(steps, every - session.steps_done % every)
        return min(steps, config.steps_per_execution)

    def _time_to_save(self) -> bool:
        every = self.config.checkpoint_every_s or math.inf
        return self.session.place.is_chief and time.monotonic() - self.session.last_save >= every

    def _stop_here(self, at_end: bool) -> None:
        """Saves and stops; an epoch that is just through is finished first."""
        if not at_end:
            self._checkpoint()
            raise Preempted
        # The epoch's end saves; the next call of steps asks again.

    def _checkpoint(self) -> None:
        phase = "checkpoint"
        self.reporter.enter(phase)
        if self.log:
            self.log.flush()
        path = self.session.save()
        if path is not None:
            position = self.session.state.position
            self.reporter.send(
                phase, path=path, epoch=position.epoch, step=self.session.steps_done
            )
        self.reporter.enter("training")

    def _evaluate(self, line: dict[str, Any], metrics: dict[str, float]) -> None:
        """Adds the epoch's training and validation metrics to `line`."""
        self.reporter.enter("evaluation")
        evaluated = self.session.evaluate()
        if evaluated is not None:
            loss, validation, receipt = evaluated
            metrics = {
                **metrics,
                "val_loss": loss,
                **{f"val_{name}": value for name, value in validation.items()},
            }
            line["validation_receipt"] = receipt.to_json()
        line["metrics"] = self.metrics = metrics

    def _tell_steps(self, result: StepsResult, first: int, seconds: float) -> None:
        session = self.session
        steps = len(result.losses)
        rate = steps * self.config.global_batch_size / seconds
        common = {
            "epoch": session.state.position.epoch,
            "metrics": result.metrics,
            "records_per_s": rate,
            "wait_share": min(1.0, result.wait_s / seconds),
        }
        losses = [float(loss) for loss in result.losses]
        if self.log:
            self.log.steps(
                [
                    {"step": first + at + 1, "loss": loss, **common}
                    for at, loss in enumerate(losses)
                ]
            )
        total = self.config.epochs * session.shards.steps_per_epoch
        self.reporter.send(
            "step", step=session.steps_done, total_steps=total, loss=losses[-1], **common
        )

    def _tell_epoch(self, line: dict[str, Any], said: list[str]) -> None:
        if self.log:
            self.log.epoch(line)
        self.reporter.send("epoch", **line, epochs=self.config.epochs, said=said)

    def _save_model(self) -> str:
        """The chief saves the model, the others wait; returns its path."""
        if self.log:
            self.log.finish(self.session.model)
        self.session.barrier()
        # Who leaves a barrier may be gone before another has left it too. All have left the
        # first one once they meet in the second, and nothing is lost if that one breaks.
        with contextlib.suppress(tf.errors.OpError):
            self.session.barrier()
        return f"{self.config.run_dir}/{MODEL_NAME}"
