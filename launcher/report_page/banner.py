"""The verdict on top of the page: is the run healthy, what limits it, does it learn, what to do.

Pure: a function from the values of a run to the words.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.data.units import plural
from tenfold.launcher.job.events import NotFinite
from tenfold.launcher.job.history.goodput import Goodput
from tenfold.launcher.job.job_result import Failure, Recovery
from tenfold.launcher.report_page.learning import Learning, judge_learning
from tenfold.models.metrics_line import EpochMetrics

MAX_ERROR_CHARS: Final = 240
# A run is limited by its restarts if they and the work lost in them take more of its time.
RESTARTS_SHARE: Final = 0.2
_LIMITS: Final = {
    "input": "its input", "compute": "computing", "communication": "the exchange of gradients",
}  # fmt: skip

_RESUME: Final = "run the same command again: it resumes at the newest checkpoint"
_REMEDY_NOT_FINITE: Final = (
    "look at the records of that step, lower --learning_rate, or give --clip_norm"
)
# The title's words on learning.
_TITLES: Final = {
    "unknown": "", "learning": "still learning", "overfitting": "overfitting",
    "flat": "no longer improving", "worse": "getting worse",
}  # fmt: skip


@dataclass(frozen=True)
class RunValues:
    """The values of a run that the verdict depends on.

    Attributes:
      state: ``succeeded``, ``failed``, ``cancelled``, ``running`` or ``ended without a result``.
      epochs: the finished epochs.
      num_epochs: the epochs of the whole run, None for a program of the user's own.
      step: the last step, None before the first.
      failure: the failure that ended the run.
      reason: why the run was not restarted.
      recoveries: the failures after which it was restarted.
      not_finite: the first value that was not finite.
      skipped: the number of steps that were left out because they were not finite.
      goodput: what the time was spent on.
    """

    state: str
    epochs: tuple[EpochMetrics, ...] = ()
    num_epochs: int | None = None
    step: int | None = None
    failure: Failure | None = None
    reason: str = ""
    recoveries: tuple[Recovery, ...] = ()
    not_finite: NotFinite | None = None
    skipped: int = 0
    goodput: Goodput | None = None

    @property
    def reports_epochs(self) -> bool:
        """Whether the run has epochs, as those of the built-in trainer and few programs have."""
        return self.num_epochs is not None or bool(self.epochs)


@dataclass(frozen=True)
class Banner:
    """The verdict.

    Attributes:
      level: ``good``, ``warn``, ``bad`` or ``busy``.
      title: the verdict in a few words.
      facts: names and texts.
      sentence: the verdict, what limits the run, and what to do, in one sentence.
    """

    level: str
    title: str
    facts: tuple[tuple[str, str], ...]
    sentence: str = ""


def judge_run(run: RunValues) -> Banner:
    """Return the verdict on a run."""
    learning = judge_learning(run.epochs)
    level, health, detail = _health(run)
    title = ", ".join(filter(None, [health, _TITLES[learning.kind]]))
    if level == "bad":
        title = health
    elif level == "good" and learning.kind in ("overfitting", "worse"):
        level = "warn"
    facts = [("Health", detail), ("Limited by", limit_text(run.epochs))]
    if run.reports_epochs and (learning.kind != "unknown" or level in ("good", "busy")):
        facts.append(("Learning", learning.text))
    if run.goodput:
        facts.append(("Goodput", run.goodput.sentence()))
        facts.append(("Slow worker", run.goodput.slow_sentence()))
    advice = _next(run, learning)
    facts.append(("Next", advice))
    sentence = "; ".join(filter(None, [title, _limit_words(run), advice])) + "."
    shown = tuple((name, text) for name, text in facts if text)
    return Banner(level, title, shown, sentence)


def _limit_words(run: RunValues) -> str:
    """Return what limits the run in a few words, empty if that is not known."""
    goodput = run.goodput
    if goodput and goodput.seconds:
        lost = (
            goodput.parts.get("restart", 0.0) + goodput.parts.get("lost", 0.0)
        ) / goodput.seconds
        if lost > RESTARTS_SHARE:
            return f"limited by restarts and the work lost in them, {lost:.0%} of the time"
        if goodput.slow_worker is not None:
            return f"limited by worker {goodput.slow_worker}, which is slower than the others"
    bound = limit_text(run.epochs).partition("-bound")[0]
    return f"limited by {_LIMITS.get(bound, bound)}" if bound else ""


def limit_text(epochs: Sequence[EpochMetrics]) -> str:
    """Return what limits the run, in the words of the terminal; empty if it was not measured.

    This is the most frequent verdict of the epochs, as last worded. The first epoch includes
    compiling and counts only if it is the only one.
    """
    found = [line.bottleneck for line in epochs if line.bottleneck and line.bottleneck.bound]
    found = found[1:] or found
    if not found:
        return ""
    usual = Counter(each.bound for each in found[::-1]).most_common(1)[0][0]
    return next(each.sentence() for each in found[::-1] if each.bound == usual)


def _health(run: RunValues) -> tuple[str, str, str]:
    """Return the level, the words of the title, and a sentence on how the run is."""
    inexact = [line.epoch + 1 for line in run.epochs if not line.is_exact]
    found = _not_finite_text(run)
    if run.state == "failed":
        what = f": {_what_is_not_finite(run.not_finite)}" if run.not_finite else ""
        return "bad", f"Failed{_at(run)}{what}", _failure_text(run)
    if run.state == "ended without a result":
        text = "the launcher was killed, or its disk was full: the logs hold its last lines"
        return "bad", f"Ended without a result{_at(run)}", text
    if inexact:
        epochs = ", ".join(map(str, inexact[:10]))
        text = f"some records were not read exactly once in epoch {epochs}"
        return "bad", "Not healthy: records lost or repeated", text
    if found and run.not_finite is not None and run.not_finite.is_skipped:
        skipped = plural(max(run.skipped, 1), "skipped step")
        return "warn", f"{run.state.capitalize()}, with {skipped}", found
    if found:
        kept = run.not_finite is not None and run.not_finite.kept_step is not None
        health = "Stopped" if kept else "Not healthy"
        return "warn" if kept else "bad", f"{health}: {_what_is_not_finite(run.not_finite)}", found
    if run.state == "cancelled":
        return "warn", f"Cancelled{_at(run)}", _done_text(run)
    if run.state == "running":
        return "busy", f"Running{_after_restarts(run)}", _done_text(run)
    health = "Healthy" if run.reports_epochs else "Succeeded"
    return "good", f"{health}{_after_restarts(run)}", _done_text(run)


def _at(run: RunValues) -> str:
    step = run.failure.step if run.failure else run.step
    return "" if step is None else f" at step {step:,}"


def _after_restarts(run: RunValues) -> str:
    return f" after {plural(len(run.recoveries), 'restart')}" if run.recoveries else ""


def _failure_text(run: RunValues) -> str:
    if run.failure is None:
        return "the launcher had to stop the workers"
    error = _headline(run.failure)
    not_restarted = f"; not restarted: {run.reason}" if run.reason else ""
    return f"worker {run.failure.worker} failed: {error}{not_restarted}"


def _what_is_not_finite(found: NotFinite | None) -> str:
    what = found.what if found else "loss"
    return f"the {what} {'are' if what == 'weights' else 'is'} not finite"


def _not_finite_text(run: RunValues) -> str:
    if run.not_finite is not None:
        return run.not_finite.sentence
    wrong = [line.epoch + 1 for line in run.epochs if not math.isfinite(line.loss)]
    return f"the loss is not finite since epoch {wrong[0]}" if wrong else ""


def _done_text(run: RunValues) -> str:
    parts = []
    if run.num_epochs is not None:
        parts.append(f"{len({line.epoch for line in run.epochs})} of {run.num_epochs} epochs done")
    if run.epochs:
        parts.append("every record read exactly once")
    if not run.reports_epochs and run.state == "succeeded":
        parts.append("the program ended with status 0 on all workers; how it learns is not known")
    for recovery in run.recoveries[-3:]:
        failure = recovery.failure
        step = "" if failure.step is None else f" at step {failure.step:,}"
        cause = "was preempted" if recovery.preempted else _headline(failure)
        parts.append(f"restarted after worker {failure.worker}{step}: {cause}")
    return "; ".join(parts)


def _headline(failure: Failure) -> str:
    line = failure.error.split("\n", 1)[0]
    return textwrap.shorten(line, MAX_ERROR_CHARS, placeholder=" …")


def _next(run: RunValues, learning: Learning) -> str:
    """Return what to do now."""
    if run.not_finite is not None or (run.state != "failed" and _not_finite_text(run)):
        return _REMEDY_NOT_FINITE
    if run.state == "failed":
        return f"remove the cause of the first failure below, then {_RESUME}"
    if run.state in ("cancelled", "ended without a result"):
        return _RESUME
    if any(not line.is_exact for line in run.epochs):
        return "run 'tenfold verify'; if the shards are sound, report a bug"
    return _next_of_learning(run, learning)


def _next_of_learning(run: RunValues, learning: Learning) -> str:
    best = learning.best_epoch + 1
    if learning.kind == "overfitting":
        return (
            f"train for {plural(best, 'epoch')}, or use more data, augmentation (--augment, for "
            "images) or regularisation"
        )
    if learning.kind == "worse":
        return "lower --learning_rate, give --clip_norm, or use --schedule=cosine"
    if run.state == "running":
        return "wait: nothing needs attention"
    if learning.kind == "learning":
        return "train on: run the same command with a higher --epochs"
    if learning.kind == "flat":
        return (
            "more epochs alone will change little: lower --learning_rate, use --schedule=cosine, "
            "a larger model or more data"
        )
    return "" if not run.reports_epochs else "train for more --epochs to see whether it learns"
