"""The parts of the page on the outcome: state, figures, failures, curves, receipts."""

import time
from collections.abc import Sequence
from typing import Final

from tenfold.data.units import format_duration, plural
from tenfold.launcher.display.progress.best_value import best_value
from tenfold.launcher.job.events import Error
from tenfold.launcher.job.history.history_line import StepProgress
from tenfold.launcher.job.job_result import Failure
from tenfold.launcher.report_page.axis import show_short
from tenfold.launcher.report_page.banner import Banner, RunValues
from tenfold.launcher.report_page.charts import ChartLine, is_drawable, line_chart, not_finite_text
from tenfold.launcher.report_page.markup import Child, Markup, join, table, tag
from tenfold.launcher.report_page.run_files import RunFiles
from tenfold.launcher.report_page.series import Point, Series, finite, show
from tenfold.launcher.report_page.timeline import Timeline, find_not_finite, find_restarts
from tenfold.models.metrics_line import EpochMetrics, ReceiptLine, TrainingLine

MAX_CONSEQUENCES: Final = 20
MAX_EPOCHS: Final = 200
MAX_CURVES: Final = 4  # of a chart; the style sheet has as many colours
# The most tiles in a row, by the screens of the style sheet.
TILES_PER_ROW: Final = {"wide": 7, "medium": 5, "narrow": 2}


def header(run: RunFiles, verdict: Banner) -> Markup:
    """Return the name and the state of the run, its model or program, and its size."""
    badge = tag("span", run.state, cls=f"badge {verdict.level}")
    train = run.spec.train
    program = f"model {train.model}" if train else " ".join(run.spec.argv)
    words = [program, plural(run.spec.num_workers, "worker")]
    if run.environment.get("launched"):
        words.append(f"launched {run.environment['launched']}")
    subtitle = tag("p", " · ".join(words), cls="muted")
    return tag("header", tag("h1", run.name), badge, subtitle)


def banner(verdict: Banner) -> Markup:
    """Return the verdict on the run and what to do next."""
    facts = [
        join(tag("dt", name), tag("dd", text)) for name, text in verdict.facts if name != "Next"
    ]
    title = tag("h2", verdict.sentence)
    return tag("section", title, tag("dl", *facts), cls=f"banner {verdict.level}")


def run_values(run: RunFiles) -> RunValues:
    """Return the values of a run that the verdict depends on."""
    lines: list[TrainingLine] = [*run.steps, *run.epochs]
    result = run.result
    return RunValues(
        state=run.state,
        epochs=run.epochs,
        num_epochs=run.spec.train.epochs if run.spec.train else None,
        step=max((line.step for line in lines), default=None),
        failure=result.first_failure if result else None,
        reason=result.reason if result else "",
        recoveries=result.recoveries if result else (),
        not_finite=find_not_finite(run.events),
        skipped=sum(bool(line.skipped) for line in run.steps),
        goodput=run.goodput,
    )


def tiles(run: RunFiles, timeline: Timeline | None) -> Markup:
    """Return the most important figures, in rows of about the same length."""
    cells = [tag("div", tag("b", value), tag("span", name), cls="tile") for name, value in
             _figures(run, timeline)]  # fmt: skip
    columns = ";".join(
        f"--{screen}:{even_columns(len(cells), most)}" for screen, most in TILES_PER_ROW.items()
    )
    return tag("div", *cells, cls="tiles", style=columns)


def even_columns(count: int, most: int) -> int:
    """Return how many of `count` tiles go into a row, at most `most`, so that rows are even."""
    rows = -(-count // most)
    return -(-count // max(rows, 1)) or 1


def _figures(run: RunFiles, timeline: Timeline | None) -> list[tuple[str, str]]:
    lines: list[TrainingLine] = sorted([*run.steps, *run.epochs], key=lambda line: line.step)
    figures = []
    if run.result:
        figures.append(("duration", format_duration(run.result.seconds)))
    elif timeline:
        figures.append(("duration so far", format_duration(timeline.end - timeline.begin)))
    if lines:
        figures.append(("steps" + _of_steps(run), f"{lines[-1].step:,}"))
    if run.epochs:
        last = run.epochs[-1]
        epochs = run.spec.train.epochs if run.spec.train else "?"
        figures.append((f"epochs of {epochs}", str(last.epoch + 1)))
        figures.append(("loss, last epoch", show(last.loss)))
        figures += [(name.replace("_", " "), show(value)) for name, value in last.metrics.items()]
        best = best_value((line.epoch, {"loss": line.loss, **line.metrics}) for line in run.epochs)
        if best:
            name = f"best {best.name.replace('_', ' ')}, epoch {best.epoch + 1}"
            figures.append((name, show(best.value)))
    if lines:
        since = "last epoch" if isinstance(lines[-1], EpochMetrics) else "last steps"
        figures.append((f"records/s, {since}", show(lines[-1].records_per_s)))
    if run.result:
        figures.append(("restarts", str(run.result.restarts)))
    elif timeline:
        starts = max((worker.starts for worker in timeline.workers), default=1)
        figures.append(("restarts", str(max(starts - 1, 0))))
    return figures


def _of_steps(run: RunFiles) -> str:
    steps = [event.entry for event in run.events if isinstance(event.entry, StepProgress)]
    totals = [step.total_steps for step in steps if step.total_steps]
    return f" of {totals[-1]:,}" if totals else ""


# --- failures ---


def failures(run: RunFiles) -> Markup | None:
    """Return the first failure with its traceback, and the failures that it caused."""
    result = run.result
    if result is None or result.first_failure is None:
        return _failures_so_far(run) if result is None else None
    cause = _failure_card("First failure", result.first_failure)
    texts = [f"worker {other.worker}: {_first_line(other.error)}" for other in result.consequences]
    hidden = len(texts) - MAX_CONSEQUENCES
    items = [tag("li", text) for text in texts[:MAX_CONSEQUENCES]]
    if hidden > 0:
        items.append(tag("li", f"and {hidden:,} more workers"))
    title = tag("p", "Consequences of the first failure:") if items else None
    reason = tag("p", f"Not restarted: {result.reason}") if result.reason else None
    return tag("section", cause, tag("div", title, tag("ul", *items) if items else None, reason))


def _failures_so_far(run: RunFiles) -> Markup | None:
    """Return the last errors of a running job, newest first."""
    failed = [(event, event.entry) for event in run.events if isinstance(event.entry, Error)]
    if not failed:
        return None
    cards = []
    for event, error in failed[-5:][::-1]:
        text = f"{error.type}: {error.message}"
        failure = Failure(event.worker, event.time, event.phase, None, None, text, error.traceback)
        cards.append(_failure_card("Failure", failure))
    return tag("section", *cards)


def _failure_card(title: str, failure: Failure) -> Markup:
    where = f" in phase {failure.phase.replace('_', ' ')}" if failure.phase else ""
    step = f" at step {failure.step:,}" if failure.step is not None else ""
    code = f", exit code {failure.exit_code}" if failure.exit_code is not None else ""
    when = time.strftime("%H:%M:%S", time.localtime(failure.time))
    head = f"{title}: worker {failure.worker} at {when}{where}{step}{code}"
    trace = _traceback(failure, is_open=True)
    return tag("div", tag("b", head), tag("p", failure.error), trace, cls="card failure")


def _traceback(failure: Failure, *, is_open: bool) -> Markup | None:
    if not failure.traceback:
        return None
    text = tag("pre", failure.traceback)
    return tag("details", tag("summary", "traceback"), text, open="open" if is_open else None)


def recoveries(run: RunFiles) -> Markup | None:
    """Return the failures after which the job restarted, or None if there were none."""
    if run.result is None or not run.result.recoveries:
        return None
    rows: list[tuple[Child, ...]] = []
    for number, recovery in enumerate(run.result.recoveries, 1):
        failure = recovery.failure
        cause = "preempted" if recovery.preempted else _first_line(failure.error)
        seconds = recovery.seconds
        took = format_duration(seconds) if seconds is not None else "no step since"
        detail = join(cause, _traceback(failure, is_open=False))
        step = "" if failure.step is None else f"{failure.step:,}"
        rows.append((number, failure.worker, step, took, recovery.num_workers, detail))
    head = ("restart", "failed worker", "at step", "time to next step", "workers after", "cause")
    shown = table(head, rows, numbers="nnnnn")
    return join(tag("h3", "Restarts"), tag("div", shown, cls="card"))


def host_changes(run: RunFiles) -> Markup | None:
    """Return the changes of the hosts during the job, or None if there were none."""
    if run.result is None or not run.result.resizes:
        return None
    rows: list[tuple[Child, ...]] = []
    for change in run.result.resizes:
        when = time.strftime("%H:%M:%S", time.localtime(change.time))
        step = "" if change.step is None else f"{change.step:,}"
        took = format_duration(change.seconds) if change.seconds is not None else "no step since"
        rows.append((when, step, took, change.before, change.num_workers, change.reason))
    head = ("time", "after step", "time to next step", "workers before", "workers after", "cause")
    shown = table(head, rows, numbers="nnnnn")
    return join(tag("h3", "Changes of hosts"), tag("div", shown, cls="card"))


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


# --- curves ---


def curves(run: RunFiles) -> Markup | None:
    """Return the charts over the steps, or None if there are no metrics yet."""
    if not run.steps and not run.epochs:
        return _program_curves(run)
    lines: list[TrainingLine] = [*run.steps, *run.epochs]
    names = dict.fromkeys(name for line in lines for name in line.metrics)
    plain = [name for name in names if not name.startswith("val_")]
    alone = [n for n in names if n.startswith("val_") and n[4:] not in (*plain, "loss")]
    curves_of = {name: _curves_of(name, run) for name in ("loss", *plain, *alone)}
    marks = chart_marks(run)
    charts = [
        line_chart(name.replace("_", " "), shown, show_tick=show_short, marks=marks)
        for name, shown in curves_of.items()
        if is_drawable(shown)
    ]
    charts += _optimizer_charts(run, marks)
    charts += _speed_charts(run, marks)
    missing = [
        _no_chart(name, shown) for name, shown in curves_of.items() if not is_drawable(shown)
    ]
    # An odd number of charts has a row of three, so that no row has an empty place.
    odd = "charts odd" if len(charts) % 2 and len(charts) > 1 else "charts"
    grid = tag("div", *charts, cls=odd) if charts else None
    return tag("section", tag("h2", "Metrics by step"), *missing, grid)


def _program_curves(run: RunFiles) -> Markup | None:
    """Return the charts of what a program of the user's own reports, None if it reports nothing.

    A restart repeats steps; a curve holds the last report of each.
    """
    steps = [
        (event.worker, event.entry)
        for event in run.events
        if isinstance(event.entry, StepProgress) and event.worker < MAX_CURVES
    ]
    marks = chart_marks(run)
    charts = []
    for name, title in (("loss", "loss"), ("records_per_s", "records per second")):
        points: dict[int, dict[float, float]] = {}
        for worker, step in steps:
            value = getattr(step, name)
            if value is not None:
                points.setdefault(worker, {})[step.step] = value
        curves = [
            Series(f"worker {worker}", tuple(sorted(of_worker.items())))
            for worker, of_worker in sorted(points.items())
        ]
        if is_drawable(curves):
            charts.append(line_chart(title, curves, show_tick=show_short, marks=marks))
    if not charts:
        return None
    return tag("section", tag("h2", "Reports by step"), tag("div", *charts, cls="charts"))


def _optimizer_charts(run: RunFiles, marks: Sequence[ChartLine]) -> list[Markup]:
    """Return the charts of the learning rate and the gradient's norm, after each call of steps."""
    charts = []
    for name, style in (("learning_rate", "line"), ("gradient_norm", "smoothed")):
        curves = [Series("all workers", metric_points(run.steps, name), style)]
        if is_drawable(curves):
            title = name.replace("_", " ")
            charts.append(line_chart(title, curves, show_tick=show_short, marks=marks))
    return charts


def _speed_charts(run: RunFiles, marks: Sequence[ChartLine]) -> list[Markup]:
    if len(run.steps) < 2:
        return []
    rate = tuple((float(line.step), line.records_per_s) for line in run.steps)
    wait = tuple((float(line.step), 100 * line.wait_share) for line in run.steps)
    all_workers = [Series("all workers", rate, "smoothed")]
    chief = [Series("worker 0", wait, "smoothed")]
    return [
        line_chart("records per second", all_workers, show_tick=show_short, marks=marks),
        line_chart("share of time waiting for input", chief, show_y=_show_percent, marks=marks),
    ]


def _no_chart(name: str, curves: Sequence[Series]) -> Markup:
    """Return the sentence that stands for a chart without two finite values."""
    points = [point for curve in curves for point in curve.points]
    left_out = len(points) - len(finite(points))
    text = not_finite_text(left_out) if left_out else "one step only, so far"
    return tag("p", f"{name.replace('_', ' ')}: {text}", cls="bad" if left_out else "muted")


def chart_marks(run: RunFiles) -> list[ChartLine]:
    """Return the restarts of a run and its first value that is not finite, as marks of charts."""
    marks = [ChartLine(each.step, "restart", each.text) for each in find_restarts(run.events)]
    found = find_not_finite(run.events)
    if found:
        marks.append(ChartLine(found.step, "not finite", found.sentence))
    return marks


def _curves_of(name: str, run: RunFiles) -> list[Series]:
    # A step's line holds the loss of this step, but the metrics of the epoch up to this step.
    by_step = ("each step", "smoothed") if name == "loss" else ("epoch so far", "faint")
    curves = [
        Series(by_step[0], metric_points(run.steps, name), by_step[1]),
        Series("epoch", metric_points(run.epochs, name), "dots"),
        Series("validation", metric_points(run.epochs, f"val_{name}"), "dots"),
    ]
    return [curve for curve in curves if curve.points]


def metric_points(lines: Sequence[TrainingLine], name: str) -> tuple[Point, ...]:
    """Return (step, value) of the loss, a metric, the learning rate or the gradient's norm."""
    if name == "loss":
        return tuple((float(line.step), line.loss) for line in lines)
    if name in ("learning_rate", "gradient_norm"):
        found = ((line.step, getattr(line, name, None)) for line in lines)
        return tuple((float(step), value) for step, value in found if value is not None)
    return tuple((float(line.step), line.metrics[name]) for line in lines if name in line.metrics)


def _show_percent(value: float) -> str:
    return f"{show(round(value, 1))} %"


# --- receipts ---


def receipts(run: RunFiles) -> Markup | None:
    """Return the receipts, the proof of which records were read in each epoch."""
    found = [item for line in run.epochs for item in _receipts_of(line)]
    if not found:
        return None
    wrong = [line for line, _, receipt in found if not receipt.exact]
    if wrong:
        epochs = ", ".join(str(line.epoch + 1) for line in wrong[:10])
        text = (
            f"Some records were not read exactly once in epoch {epochs}: run 'tenfold verify'; if "
            "the shards are sound, report a bug."
        )
        verdict = tag("p", text, cls="bad")
    else:
        text = _verdict([receipt for _, _, receipt in found])
        verdict = tag("p", text, cls="good")
    meaning = (
        "A receipt counts the records that all workers together read, sums the fingerprints of "
        "their bytes and compares both with the manifest. The records left over at the end of a "
        "training epoch are too few for a batch; they are different records in each epoch. With "
        "--remainder=repeat, records that are read again fill the last batches."
    )
    rows = [_receipt_row(*item) for item in found[-MAX_EPOCHS:]]
    head = (
        "epoch", "split", "read", "read again", "left over", "in the shards", "exact",
        "fingerprint",
    )  # fmt: skip
    shown = table(head, rows, numbers="n nnnn")
    folded = tag("details", tag("summary", plural(len(rows), "receipt")), shown)
    body = folded if len(rows) > 12 else shown
    return tag(
        "section",
        tag("h2", "Receipts"),
        tag("div", verdict, tag("p", meaning, cls="muted"), body, cls="card"),
    )


def _verdict(found: Sequence[ReceiptLine]) -> str:
    """Return what receipts prove that are all exact."""
    once = [receipt for receipt in found if not receipt.balanced]
    texts = []
    if once:
        each_pass = " in each pass" if any(receipt.passes for receipt in once) else ""
        count = plural(len(once), "receipt")
        texts.append(f"Every record was read exactly once{each_pass}: {count}, all exact.")
    if balanced := next((receipt.balanced for receipt in found if receipt.balanced), None):
        most, least = max(balanced.values()), min(filter(None, balanced.values()))
        texts.append(
            "Training balanced the classes: an epoch reads as many records as the shards hold, "
            f"those of the rarest class {most:.3g} times on average, of the most frequent one "
            f"{least:.3g} times."
        )
    return " ".join(texts)


def _receipts_of(line: EpochMetrics) -> list[tuple[EpochMetrics, str, ReceiptLine]]:
    training = [
        (_training_name(receipt), receipt) for receipt in (line.receipt, *line.other_receipts)
    ]
    named = [*training, ("validation", line.validation_receipt)]
    return [(line, split, receipt) for split, receipt in named if receipt is not None]


def _training_name(receipt: ReceiptLine) -> str:
    """Return ``training``, in a mixture with the data set and its passes that have ended."""
    if receipt.passes is not None:
        return f"training on {receipt.data}: whole passes, of {receipt.passes:.2f} an epoch"
    return f"training on {receipt.data}" if receipt.data else "training"


def _receipt_row(line: EpochMetrics, split: str, receipt: ReceiptLine) -> tuple[Child, ...]:
    exact = receipt.exact
    return (
        line.epoch + 1,
        split,
        f"{receipt.records:,}",
        f"{receipt.repeated:,}",
        f"{receipt.left_out:,}",
        f"{receipt.expected:,}",
        tag("span", "yes" if exact else "no", cls="good" if exact else "bad"),
        tag("code", receipt.fingerprint),
    )
