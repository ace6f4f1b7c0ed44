"""The training run: epochs of steps, checkpoints, evaluation, the saved model."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
import tensorflow as tf

from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.reading.locating.batch_records import step_records
from tenfold.data.reading.locating.read_errors import explain_errors
from tenfold.data.reading.read_options import Position, WorkerPlace
from tenfold.data.reading.receipts import Receipt
from tenfold.models.metrics_line import (
    BottleneckLine,
    EpochMetrics,
    ReceiptLine,
    StepMetrics,
    ValidationMetrics,
)
from tenfold.models.output_files import BEST_MODEL_FILE, MODEL_FILE
from tenfold.models.run_rules.figures import VALIDATION_PREFIX, BestFigure, watched_figure
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.callbacks import callback_list, load_callbacks
from tenfold.models.training.diagnosis import find_origin
from tenfold.models.training.reporting.not_finite import NotFiniteError, NotFiniteFinding
from tenfold.models.training.reporting.reporter import Reporter
from tenfold.models.training.reporting.run_log import RunLog
from tenfold.models.training.session import Session
from tenfold.models.training.steps import StepsResult

# A run repeats the steps since its newest checkpoint, to find where a value that is not finite
# first appeared, if they took no longer than this.
REPLAY_LIMIT_S: Final = 120.0

# With --on_nan=skip a run ends if more steps in a row are not finite: it learns nothing more.
MAX_SKIPPED_IN_A_ROW: Final = 20

# How long a worker stays after the last barrier.
LINGER_S: Final = 0.2


class Preempted(Exception):
    """The run was asked to stop and has saved a checkpoint from which it can resume."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a whole run.

    Attributes:
      epochs: epochs that were finished.
      steps: steps of the whole run.
      metrics: the last epoch's metrics.
      model_path: the path of the saved model.
      skipped: the steps, since this process started, whose update was left out.
      ended: the rule that ended the run before its last epoch; empty for none.
      best: the best model that was kept, in words; empty for none.
    """

    epochs: int
    steps: int
    metrics: dict[str, float]
    model_path: str
    skipped: int = 0
    ended: str = ""
    best: str = ""


@dataclass(frozen=True)
class _Validation:
    """An evaluation after `step` steps; no receipt without a validation split."""

    step: int
    figures: Mapping[str, float]
    receipt: Receipt | None


def train(
    config: TrainConfig,
    *,
    strategy: tf.distribute.Strategy,
    place: WorkerPlace,
    reporter: Reporter,
    stop: Callable[[], bool] = lambda: False,
    before_leaving: Callable[[], None] = lambda: None,
) -> TrainResult:
    """Train, resuming from the newest checkpoint of the run directory.

    Every worker calls this.

    Args:
      config: the same on every worker.
      strategy: a strategy over all workers.
      place: which of the workers this is.
      reporter: receives the progress.
      stop: called between calls of steps; if it returns True on any worker, all workers save a
        checkpoint and stop.
      before_leaving: called when the work of all workers is done, before the first leaves.

    Returns:
      The result, the same on every worker.

    Raises:
      Preempted: the run was stopped and a checkpoint saved.
      UserError: the shards, the model and the configuration do not fit together.
      JobError: a record cannot be read, or a shard cannot be fetched.
      NotFiniteError: the loss or a weight is not finite, and the run does not ignore that.
    """
    reporter.enter("build")
    session = Session(config, strategy=strategy, place=place)
    resumed = session.restore()
    run = _Run(session, reporter, stop, before_leaving)
    if session.changes:
        reporter.remark(f"resumes with {', '.join(session.changes)}")
    if resumed:
        reporter.resumed(epoch=session.state.position.epoch, step=session.steps_done)
    try:
        with explain_errors():
            return run.to_end()
    except BaseException:
        session.finish_saving()
        raise


class _Run:
    def __init__(
        self,
        session: Session,
        reporter: Reporter,
        stop: Callable[[], bool],
        before_leaving: Callable[[], None],
    ) -> None:
        self.session = session
        self.before_leaving = before_leaving
        self.config = session.config
        self.reporter = reporter
        self.stop = stop
        self.metrics: dict[str, float] = {}
        self.first_call = True
        self.stop_requested = False
        self.seen_not_finite = False
        self.skipped = self.skipped_in_a_row = 0
        self.rules = session.config.stop
        self.over_time = self._is_over_time()
        self.validation = _Validation(-1, {}, None)
        chief = session.place.is_chief
        self.callbacks = callback_list(
            session.model,
            load_callbacks(
                self.config.callbacks, working_dir=self.config.working_dir, is_chief=chief
            ),
            epochs=self.config.epochs,
            steps=session.data.steps_per_epoch,
        )
        self.log: RunLog | None = None
        if chief:
            self.log = RunLog(
                self.config.run_dir,
                steps_done=session.steps_done,
                goes_on=not self._end_reason(),
            )

    def to_end(self) -> TrainResult:
        session = self.session
        session.start_reading()
        self.reporter.enter("first_step")
        self.callbacks.on_train_begin()
        try:
            while self._has_next_epoch():
                self._epoch()
        except NotFiniteError as error:
            if error.finding.kept_step is None:
                raise
        self.reporter.enter("checkpoint")
        self._report_saved(wait=True)
        self.callbacks.on_train_end(self.metrics)
        self.reporter.enter("saving")
        reason = self._end_reason() if session.state.position.epoch < self.config.epochs else ""
        if reason:
            self.reporter.remark(f"the run ends at step {session.steps_done:,} by {reason}")
        path = self._save_model()
        session.remove_copy()
        return TrainResult(
            session.state.position.epoch,
            session.steps_done,
            self.metrics,
            path,
            skipped=self.skipped,
            ended=reason,
            best=self._best_kept(),
        )

    def _is_over_time(self) -> bool:
        """Return whether the run has lasted long enough; the same on all workers."""
        is_over = self.rules.is_over_time(self.session.seconds)
        return bool(self.rules.max_time_s) and self.session.any_worker(is_over)

    def _end_reason(self) -> str:
        """Return why the run ends before the next step, empty if it does not."""
        figure, best = self.rules.figure, self.session.state.best
        return self.rules.reason(
            steps_done=self.session.steps_done,
            over_time=self.over_time,
            best=best.get(figure.name, BestFigure()) if figure else BestFigure(),
        )

    def _best_kept(self) -> str:
        if not self.config.keep_best:
            return ""
        name = watched_figure(self.config.keep_best, "keep_best").name
        best = self.session.state.best.get(name)
        if best is None or not math.isfinite(best.value):
            return ""
        return f"{name} {best.value:.4g} at step {best.step:,} ({BEST_MODEL_FILE})"

    def _has_next_epoch(self) -> bool:
        """Whether another epoch follows; a checkpoint of the last one is then being saved.

        Raises:
          Preempted: an epoch would follow, but any worker has requested to stop.
        """
        session = self.session
        if session.state.position.epoch >= self.config.epochs:
            return False
        if session.any_worker(bool(session.model.stop_training)):  # by a callback
            return False
        self.over_time = self.over_time or self._is_over_time()
        if self._end_reason():
            return False
        if self.stop_requested:  # the same on all workers
            self._report_saved(wait=True)
            raise Preempted
        return True

    def _epoch(self) -> None:
        session = self.session
        self.callbacks.on_epoch_begin(session.state.position.epoch)
        started_at, wait_s, first = time.monotonic(), 0.0, session.state.position.step
        while not self._is_epoch_done() and not self._end_reason():
            wait_s += self._call_of_steps()
        seconds = max(time.monotonic() - started_at, 1e-9)
        epoch, last = session.state.position.epoch, session.state.position.step
        records = session.data.records_between(first, last)
        within = not self._is_epoch_done()
        if within:  # a rule ends the run, which may go on from this checkpoint with another rule
            self._validate_within()
            self._checkpoint()
            loss, metrics, (receipt, *others) = session.finish_within_epoch()
            bottleneck = session.bottleneck()
        else:
            loss, metrics, (receipt, *others) = session.finish_epoch()
            bottleneck = session.bottleneck()
            self._evaluate(session.evaluate)
        self.metrics = {**metrics, **self.validation.figures}
        validation = self.validation.receipt
        line = EpochMetrics(
            epoch=epoch,
            step=session.steps_done,
            loss=loss,
            metrics=self.metrics,
            seconds=seconds,
            records_per_s=records / seconds,
            wait_share=min(1.0, wait_s / seconds),
            receipt=_receipt_line(receipt),
            other_receipts=tuple(map(_receipt_line, others)),
            validation_receipt=_receipt_line(validation) if validation else None,
            bottleneck=BottleneckLine(
                bottleneck.bound, bottleneck.advice, **asdict(bottleneck.shares)
            ),
        )
        self.callbacks.on_epoch_end(epoch, {"loss": loss, **self.metrics})
        receipts = (each.sentence() for each in (receipt, *others))
        self._report_epoch(line, (*receipts, bottleneck.sentence()))
        if not within:
            self._observe({"loss": loss, **self.metrics})
            self._checkpoint()

    def _is_epoch_done(self) -> bool:
        return self.session.state.position.step >= self.session.data.steps_per_epoch

    def _call_of_steps(self) -> float:
        """Run one call of steps; returns the seconds for which it waited for input."""
        session = self.session
        started_at, first = time.monotonic(), session.steps_done
        self.callbacks.on_train_batch_begin(session.state.position.step)
        result = session.run_steps(
            self._steps_until_next_stop(),
            stop=self.stop(),
            save=self._is_save_due(),
            end=self.rules.is_over_time(session.seconds),
        )
        self.over_time = result.end
        bad = self._first_not_finite(result)
        shown = result if bad is None else replace(result, losses=result.losses[: bad[0] + 1])
        self._report_steps(shown, first, max(time.monotonic() - started_at, 1e-9))
        self._take_skipped(result, first)
        if bad is not None:
            self._take_not_finite(first + bad[0] + 1, bad[1])
        logs = {"loss": float(result.losses[-1]), **result.metrics}
        self.callbacks.on_train_batch_end(session.state.position.step - 1, logs)
        if self.first_call:
            self.first_call = False
            self.reporter.enter("training")
        at_end = self._is_epoch_done()
        if not at_end and self._is_due(self.config.validate_every_steps):
            self._validate_within()
            self.reporter.enter("training")
        if not at_end and (result.save or self._is_due(self.config.checkpoint_every_steps)):
            self._checkpoint()
        if result.stop and not at_end:
            self._checkpoint()
            self._report_saved(wait=True)
            raise Preempted
        self._report_saved(wait=False)
        # At its end the epoch is finished first: its receipt and validation are then complete.
        self.stop_requested = result.stop
        return result.wait_s

    def _take_skipped(self, result: StepsResult, first: int) -> None:
        """Report the steps of a call that were left out; `first` were done before the call.

        Raises:
          NotFiniteError: too many steps in a row were left out.
        """
        for index in range(len(result.losses)):
            is_skipped = index in result.skipped
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if is_skipped else 0
            if not is_skipped:
                continue
            self.skipped += 1
            finite = np.isfinite(result.losses[index])
            finding = self._finding(first + index + 1, "gradient" if finite else "loss")
            if self.skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
                self._end_run(replace(finding, in_a_row=self.skipped_in_a_row))
            if self.session.place.is_chief:  # the others know the same
                self.reporter.not_finite(finding)

    def _finding(self, step: int, what: str) -> NotFiniteFinding:
        data = self.session.data
        epoch, index = divmod(step - 1, data.steps_per_epoch)
        records = step_records(data, Position(epoch, index))
        return NotFiniteFinding(step, epoch, what, self.config.on_nan, records)

    def _first_not_finite(self, result: StepsResult) -> tuple[int, str] | None:
        """Return the index of the first step that is not finite and not ignored yet, or None.

        Also returns which of its values that is: ``loss`` or ``gradient``. With --on_nan=skip the
        steps have looked at their gradients.
        """
        if self.seen_not_finite:
            return None
        is_bad = ~np.isfinite(result.losses)
        if result.gradient_norms is not None and self.config.on_nan != "skip":
            is_bad |= ~np.isfinite(result.gradient_norms)
        bad = np.setdiff1d(np.flatnonzero(is_bad), result.skipped)
        if not len(bad):
            return None
        index = int(bad[0])
        return index, "gradient" if np.isfinite(result.losses[index]) else "loss"

    def _take_not_finite(self, step: int, what: str) -> None:
        """Act on a loss, or weights, of a step that are not finite; all workers call this.

        Raises:
          NotFiniteError: unless such values are ignored.
        """
        session, self.seen_not_finite = self.session, True
        finding = self._finding(step, what)
        if self.config.on_nan == "skip":  # this value came in spite of that
            finding = replace(finding, action="fail")
        if self.config.on_nan != "ignore":
            self.reporter.enter("diagnosis")
            finding = self._diagnosed(finding)
        if self.config.on_nan == "stop" and session.rewind() and not session.not_finite_weight():
            finding = replace(finding, kept_step=session.steps_done)
        if self.config.on_nan == "ignore":
            self.reporter.not_finite(finding)
        else:
            self._end_run(finding)

    def _end_run(self, finding: NotFiniteFinding) -> None:
        self.reporter.not_finite(finding)
        self._report_saved(wait=True)
        self._end_together()
        raise NotFiniteError(finding)

    def _diagnosed(self, finding: NotFiniteFinding) -> NotFiniteFinding:
        """Return `finding` with where the value first appeared, if the steps can be repeated."""
        seconds = time.monotonic() - self.session.last_save
        if self.session.any_worker(seconds > REPLAY_LIMIT_S):
            return replace(
                finding,
                where="to learn in which layer, launch again into this run directory with "
                f"--checkpoint_every={max(1, self.config.steps_per_execution)}",
            )
        origin = find_origin(self.session, step=finding.step)
        if origin is None:
            return replace(finding, where="repeating the step gave finite values")
        return replace(finding, **asdict(origin))

    def _steps_until_next_stop(self) -> int:
        """Return the steps of the next call.

        It ends at the next checkpoint or evaluation, at the end of a pass, because receipts count
        pass by pass, and at the end of the epoch or of the run.
        """
        session, config, done = self.session, self.config, self.session.steps_done
        intervals = (config.checkpoint_every_steps, config.validate_every_steps)
        return int(
            min(
                session.max_steps,
                session.data.steps_per_epoch - session.state.position.step,
                session.data.steps_to_pass_end(session.state.position),
                self.rules.steps_left(done),
                *(every - done % every for every in intervals if every),
            )
        )

    def _is_due(self, every: int) -> bool:
        """Return whether something that is done every so many steps is due."""
        return every > 0 and self.session.steps_done % every == 0

    def _is_save_due(self) -> bool:
        every = self.config.checkpoint_every_s or math.inf
        return self.session.place.is_chief and time.monotonic() - self.session.last_save >= every

    def _checkpoint(self) -> None:
        self.reporter.enter("checkpoint")
        if not self.seen_not_finite and self.session.not_finite_weight():
            self._take_not_finite(self.session.steps_done, "weights")
            self.reporter.enter("checkpoint")
        if self.log:
            self.log.flush()
        self._report_saved(wait=True)
        self.session.save()
        self.reporter.enter("training")

    def _report_saved(self, *, wait: bool) -> None:
        """Report the checkpoints that have become whole; with `wait`, all."""
        for saved in self.session.saved_checkpoints(wait=wait):
            epoch, step = saved.position.epoch, saved.position.step
            steps_done = epoch * self.session.data.steps_per_epoch + step
            self.reporter.checkpoint(saved.path, epoch=epoch, step=steps_done)

    def _evaluate(
        self, evaluate: Callable[[], tuple[float, dict[str, float], Receipt] | None]
    ) -> None:
        """Set `self.validation` by one of the session's two ways to evaluate."""
        self.reporter.enter("evaluation")
        evaluated = evaluate()
        self.validation = _Validation(self.session.steps_done, {}, None)
        if evaluated is not None:
            loss, metrics, receipt = evaluated
            figures = {
                f"{VALIDATION_PREFIX}{name}": value
                for name, value in {"loss": loss, **metrics}.items()
            }
            self.validation = replace(self.validation, figures=figures, receipt=receipt)

    def _validate_within(self) -> None:
        """Evaluate within an epoch, unless that has been done after this step."""
        session = self.session
        if self.validation.step == session.steps_done:
            return
        self._evaluate(session.evaluate_within_epoch)
        figures, receipt = self.validation.figures, self.validation.receipt
        if receipt is None:
            return
        if self.log:
            epoch, line = session.state.position.epoch, _receipt_line(receipt)
            self.log.validation(ValidationMetrics(epoch, session.steps_done, figures, line))
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self.reporter.remark(f"step {session.steps_done:,}: {shown}")
        self._observe(figures)

    def _observe(self, figures: Mapping[str, float]) -> None:
        """Take measured figures; the model is saved if the figure of --keep_best is the best."""
        improved = self.session.observe(figures)
        if not self.config.keep_best or not self.log:
            return
        if watched_figure(self.config.keep_best, "keep_best").name in improved:
            self.reporter.enter("checkpoint")
            self.log.save_model(self.session.model, BEST_MODEL_FILE)

    def _report_steps(self, result: StepsResult, first: int, seconds: float) -> None:
        """Log every step of a call and report the last; `first` were done before the call."""
        session = self.session
        begin = first % session.data.steps_per_epoch
        records = session.data.records_between(begin, begin + len(result.losses))
        last, norms = len(result.losses) - 1, result.gradient_norms
        lines = [
            StepMetrics(
                epoch=session.state.position.epoch,
                step=first + index + 1,
                loss=float(loss),
                metrics=result.metrics,
                records_per_s=records / seconds,
                wait_share=min(1.0, result.wait_s / seconds),
                exchange_share=_share(result.exchange_s, seconds),
                learning_rate=result.learning_rate if index == last else None,
                gradient_norm=None if norms is None else float(norms[index]),
                skipped=True if index in result.skipped else None,
            )
            for index, loss in enumerate(result.losses)
        ]
        if self.log:
            self.log.steps(lines)
        total = self.config.epochs * session.data.steps_per_epoch
        total = min(total, self.rules.max_steps or total)
        self.reporter.step(lines[-1], total_steps=total)

    def _report_epoch(self, line: EpochMetrics, sentences: tuple[str, ...]) -> None:
        if self.log:
            self.log.epoch(line)
        self.reporter.epoch(line, epochs=self.config.epochs, sentences=sentences)

    def _save_model(self) -> str:
        """Save the model on the chief while the other workers wait; returns its path."""
        if self.log:
            self.log.finish(self.session.model)
        self._end_together()
        return f"{self.config.run_dir}/{MODEL_FILE}"

    def _end_together(self) -> None:
        """Wait until all workers are about to leave."""
        self.session.barrier()
        self.before_leaving()
        # A worker that leaves a barrier may exit before another has left it, which breaks it. At
        # the second barrier all workers have left the first; an error there loses nothing.
        with contextlib.suppress(tf.errors.OpError):
            self.session.barrier()
        if self.session.place.num_workers > 1:
            # Workers fetch the results of a barrier from each other. One whose peer exits before
            # it has fetched them would notice after ten seconds and more.
            time.sleep(LINGER_S)


def _share(part_s: float | None, whole_s: float) -> float | None:
    return None if part_s is None else min(1.0, part_s / whole_s)


def _receipt_line(receipt: Receipt) -> ReceiptLine:
    return from_json_fields(ReceiptLine, receipt.to_json())
