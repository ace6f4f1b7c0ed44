"""The parts of the page on how a run went: its state, figures, failures, curves, receipts."""

import time
from collections.abc import Sequence
from typing import Final

from tenfold.data.units import format_duration, plural
from tenfold.launcher.job.events import Error
from tenfold.launcher.job.history_line import StepProgress
from tenfold.launcher.job.job_result import Failure
from tenfold.launcher.report_page.charts import line_chart
from tenfold.launcher.report_page.markup import Child, Markup, join, table, tag
from tenfold.launcher.report_page.run_files import RunFiles
from tenfold.launcher.report_page.series import Point, Series, show
from tenfold.launcher.report_page.timeline import Timeline
from tenfold.models.metrics_line import EpochMetrics, MetricsLine, ReceiptLine

STATE_CLASS: Final = {"succeeded": "good", "running": "running", "cancelled": "muted"}
MAX_CONSEQUENCES: Final = 20
MAX_EPOCHS: Final = 200


def header(run: RunFiles) -> Markup:
    """Returns the run's name and state, and what it runs."""
    badge = tag("span", run.state, cls=f"badge {STATE_CLASS.get(run.state, 'bad')}")
    train = run.spec.train
    what = f"model {train.model}" if train else " ".join(run.spec.argv)
    words = [what, plural(run.spec.num_workers, "worker")]
    if run.environment.get("launched"):
        words.append(f"launched {run.environment['launched']}")
    subtitle = tag("p", " · ".join(words), cls="muted")
    return tag("header", tag("h1", run.name), badge, subtitle)


def tiles(run: RunFiles, timeline: Timeline | None) -> Markup:
    """Returns the figures that one looks for first."""
    cells = [tag("div", tag("b", value), tag("span", name), cls="tile") for name, value in
             _figures(run, timeline)]  # fmt: skip
    return tag("div", *cells, cls="tiles")


def _figures(run: RunFiles, timeline: Timeline | None) -> list[tuple[str, str]]:
    lines: list[MetricsLine] = sorted([*run.steps, *run.epochs], key=lambda line: line.step)
    figures = []
    if run.result:
        figures.append(("took", format_duration(run.result.seconds)))
    elif timeline:
        figures.append(("so far", format_duration(timeline.end - timeline.begin)))
    if lines:
        figures.append(("step" + _of_steps(run), f"{lines[-1].step:,}"))
    if run.epochs:
        last = run.epochs[-1]
        figures.append(
            (f"epochs of {run.spec.train.epochs if run.spec.train else '?'}", str(last.epoch + 1))
        )
        figures.append(("loss, last epoch", show(last.loss)))
        figures += [(name.replace("_", " "), show(value)) for name, value in last.metrics.items()]
    if lines:
        since = "last epoch" if isinstance(lines[-1], EpochMetrics) else "last steps"
        figures.append((f"job's records/s, {since}", show(lines[-1].records_per_s)))
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
    """Returns the first failure with its traceback, and what followed from it."""
    result = run.result
    if result is None or result.first_failure is None:
        return _failures_so_far(run) if result is None else None
    story = _failure_card("First failure", result.first_failure)
    followed = [f"worker {one.worker}: {_first_line(one.error)}" for one in result.consequences]
    more = len(followed) - MAX_CONSEQUENCES
    shown = [tag("li", text) for text in followed[:MAX_CONSEQUENCES]]
    if more > 0:
        shown.append(tag("li", f"and {plural(more, 'worker')} more"))
    consequences = tag("p", "Consequences, not causes:") if shown else None
    reason = tag("p", f"Not started again: {result.reason}") if result.reason else None
    items = tag("ul", *shown) if shown else None
    return tag("section", story, tag("div", consequences, items, reason))


def _failures_so_far(run: RunFiles) -> Markup | None:
    """Returns what workers of an unfinished run said when they died, newest first."""
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
    """Returns the failures that the job got over, where there were any."""
    if run.result is None or not run.result.recoveries:
        return None
    rows: list[tuple[Child, ...]] = []
    for number, one in enumerate(run.result.recoveries, 1):
        failure = one.failure
        what = "preempted" if one.preempted else _first_line(failure.error)
        took = format_duration(one.seconds) if one.seconds is not None else "no step after it"
        detail = join(what, _traceback(failure, is_open=False))
        step = "" if failure.step is None else f"{failure.step:,}"
        rows.append((number, failure.worker, step, took, one.num_workers, detail))
    head = ("restart", "worker", "at step", "next step after", "workers then", "what failed")
    shown = table(head, rows, numbers="nnnnn")
    return join(tag("h3", "Restarts"), tag("div", shown, cls="card"))


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


# --- curves ---


def curves(run: RunFiles) -> Markup | None:
    """Returns the charts over the steps; None for a run that tells none."""
    if not run.steps and not run.epochs:
        return None
    lines: list[MetricsLine] = [*run.steps, *run.epochs]
    names = dict.fromkeys(name for line in lines for name in line.metrics)
    plain = [name for name in names if not name.startswith("val_")]
    alone = [n for n in names if n.startswith("val_") and n[4:] not in (*plain, "loss")]
    charts = [_chart_of("loss", run), *(_chart_of(name, run) for name in (*plain, *alone))]
    rate = tuple((float(line.step), line.records_per_s) for line in run.steps)
    wait = tuple((float(line.step), 100 * line.wait_share) for line in run.steps)
    charts.append(line_chart("records per second", [Series("all workers", rate)]))
    charts.append(
        line_chart(
            "share of time waiting for input", [Series("worker 0", wait)], show_y=_show_percent
        )
    )
    return tag("section", tag("h2", "Over the steps"), tag("div", *charts, cls="charts"))


def _chart_of(name: str, run: RunFiles) -> Markup:
    whole = "epoch so far" if name != "loss" else "each step"
    series = [
        Series(whole, _points(run.steps, name), "faint"),
        Series("epoch", _points(run.epochs, name), "dots"),
        Series("validation", _points(run.epochs, f"val_{name}"), "dots"),
    ]
    return line_chart(name.replace("_", " "), [one for one in series if one.points])


def _points(lines: Sequence[MetricsLine], name: str) -> tuple[Point, ...]:
    if name == "loss":
        return tuple((float(line.step), line.loss) for line in lines)
    return tuple((float(line.step), line.metrics[name]) for line in lines if name in line.metrics)


def _show_percent(value: float) -> str:
    return f"{show(round(value, 1))} %"


# --- receipts ---


def receipts(run: RunFiles) -> Markup | None:
    """Returns the proof of which records were read, epoch by epoch."""
    told = [item for line in run.epochs for item in _receipts_of(line)]
    if not told:
        return None
    wrong = [line for line, _, receipt in told if not receipt.exact]
    if wrong:
        epochs = ", ".join(str(line.epoch + 1) for line in wrong[:10])
        verdict = tag("p", f"NOT every record was read exactly once: epoch {epochs}", cls="bad")
    else:
        verdict = tag("p", f"{len(told):,} of {len(told):,} receipts are exact.", cls="good")
    meaning = (
        "A receipt counts the records that all workers together read, and sums their hashes. What "
        "a training epoch leaves out is fewer than a batch, and other records each epoch."
    )
    rows = [_receipt_row(*one) for one in told[-MAX_EPOCHS:]]
    head = ("epoch", "split", "read", "left out", "in the shards", "exact", "fingerprint")
    shown = table(head, rows, numbers="n nnn")
    fold = tag("details", tag("summary", plural(len(rows), "receipt")), shown)
    body = fold if len(rows) > 12 else shown
    return tag(
        "section",
        tag("h2", "Receipts"),
        tag("div", verdict, tag("p", meaning, cls="muted"), body, cls="card"),
    )


def _receipts_of(line: EpochMetrics) -> list[tuple[EpochMetrics, str, ReceiptLine]]:
    named = (("training", line.receipt), ("validation", line.validation_receipt))
    return [(line, split, receipt) for split, receipt in named if receipt is not None]


def _receipt_row(line: EpochMetrics, split: str, receipt: ReceiptLine) -> tuple[Child, ...]:
    exact = receipt.exact
    return (
        line.epoch + 1,
        split,
        f"{receipt.records:,}",
        f"{receipt.left_out:,}",
        f"{receipt.expected:,}",
        tag("span", "yes" if exact else "NO", cls="good" if exact else "bad"),
        tag("code", receipt.fingerprint),
    )
