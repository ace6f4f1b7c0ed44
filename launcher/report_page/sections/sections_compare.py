"""The parts of the page that compares several runs: their figures, their flags, their curves."""

from collections.abc import Sequence
from typing import Any, Final

from tenfold.data.units import format_duration, plural
from tenfold.launcher.report_page.axis import show_short
from tenfold.launcher.report_page.banner import judge_run
from tenfold.launcher.report_page.charts import is_drawable, line_chart
from tenfold.launcher.report_page.markup import Child, Markup, join, table, tag
from tenfold.launcher.report_page.run_files import RunFiles
from tenfold.launcher.report_page.sections.sections_outcome import metric_points, run_values
from tenfold.launcher.report_page.series import Point, Series, show, smooth

MAX_RUNS: Final = 8  # the style sheet has as many colours
_NOT_FLAGS: Final = ("run_dir", "working_dir")


def run_names(runs: Sequence[RunFiles]) -> list[str]:
    """Return a name of each run: the last part of its path, or all of it if two share that."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [run.where for run in runs]


def differing_flags(runs: Sequence[RunFiles]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all runs, with the value in each."""
    settings = [_settings(run) for run in runs]
    names = dict.fromkeys(name for each in settings for name in each)
    values = {name: [each.get(name) for each in settings] for name in names}
    return {
        name: found
        for name, found in values.items()
        if any(value != found[0] for value in found) and name not in _NOT_FLAGS
    }


def _settings(run: RunFiles) -> dict[str, Any]:
    train = run.spec.train
    own = train.to_json() if train else {"program": " ".join(run.spec.argv)}
    feed = own.pop("feed", None)
    flat = feed if isinstance(feed, dict) else {}
    return {"num_workers": run.spec.num_workers, **own, **flat, **dict(run.spec.env)}


def comparison_header(runs: Sequence[RunFiles]) -> Markup:
    """Return the title, and the verdict on each run."""
    items = []
    for index, (run, name) in enumerate(zip(runs, run_names(runs), strict=True)):
        verdict = judge_run(run_values(run))
        badge = tag("span", verdict.title, cls=verdict.level)
        items.append(tag("li", tag("i", cls=f"key k{index}"), tag("b", name), ": ", badge))
    return join(
        tag("header", tag("h1", f"Comparison of {plural(len(runs), 'run')}")),
        tag("ul", *items, cls="card runs"),
    )


def flags_section(runs: Sequence[RunFiles]) -> Markup:
    """Return the table of the flags that differ."""
    found = differing_flags(runs)
    if not found:
        text = "The runs have the same flags."
        return tag("section", tag("h2", "Flags that differ"), tag("p", text, cls="muted"))
    rows: list[tuple[Child, ...]] = [
        (name, *(_text(value) for value in values)) for name, values in found.items()
    ]
    shown = table(("flag", *run_names(runs)), rows)
    return tag("section", tag("h2", "Flags that differ"), tag("div", shown, cls="card"))


def _text(value: Any) -> str:
    if value in (None, "", (), []):
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def figures_section(runs: Sequence[RunFiles]) -> Markup:
    """Return the table of the figures of each run."""
    rows: list[tuple[Child, ...]] = [
        (name, *cells)
        for name, cells in _figures(runs).items()
        if any(cell != "" for cell in cells)
    ]
    shown = table(("figure", *run_names(runs)), rows, numbers=" " + "n" * len(runs))
    return tag("section", tag("h2", "Figures"), tag("div", shown, cls="card"))


def _figures(runs: Sequence[RunFiles]) -> dict[str, list[str]]:
    last = [run.epochs[-1] if run.epochs else None for run in runs]
    names = dict.fromkeys(name for line in last if line for name in line.metrics)
    goodputs = [run.goodput for run in runs]
    return {
        "state": [run.state for run in runs],
        "duration": [format_duration(run.result.seconds) if run.result else "" for run in runs],
        "goodput": [f"{100 * found.share:.0f} %" if found else "" for found in goodputs],
        "epochs": [str(line.epoch + 1) if line else "" for line in last],
        "steps": [f"{run.steps[-1].step:,}" if run.steps else "" for run in runs],
        "records/s, last epoch": [show(line.records_per_s) if line else "" for line in last],
        "loss": [show(line.loss) if line else "" for line in last],
        **{
            name.replace("_", " "): [
                show(line.metrics[name]) if line and name in line.metrics else "" for line in last
            ]
            for name in names
        },
        "restarts": [str(run.result.restarts) if run.result else "" for run in runs],
        "skipped steps": [
            str(skipped) if (skipped := sum(bool(line.skipped) for line in run.steps)) else ""
            for run in runs
        ],
    }


def overlaid_curves(runs: Sequence[RunFiles]) -> Markup | None:
    """Return a chart of each metric with a curve of every run, None without metrics."""
    names = run_names(runs)
    found = {line_name for run in runs for line in run.epochs for line_name in line.metrics}
    titles = ["loss", "val_loss", *sorted(found - {"val_loss"}), "learning_rate", "gradient_norm"]
    charts = []
    for title in titles:
        curves = [
            Series(name, points, style, index)
            for index, (run, name) in enumerate(zip(runs, names, strict=True))
            for points, style in [_curve(run, title)]
        ]
        if is_drawable(curves):
            charts.append(line_chart(title.replace("_", " "), curves, show_tick=show_short))
    if not charts:
        return None
    odd = "charts odd" if len(charts) % 2 and len(charts) > 1 else "charts"
    return tag("section", tag("h2", "Metrics by step"), tag("div", *charts, cls=odd))


def _curve(run: RunFiles, title: str) -> tuple[tuple[Point, ...], str]:
    """Return the points of a run's curve and their style: epochs as dots, steps smoothed."""
    if title == "loss":
        finite = [point for point in metric_points(run.steps, title) if point[1] == point[1]]
        return smooth(finite), "line"
    if title in ("learning_rate", "gradient_norm"):
        return metric_points(run.steps, title), "line"
    return metric_points(run.epochs, title), "dots"
