"""The part of the page on goodput: what the wall time was spent on, and slow workers."""

from tenfold.data.units import format_duration
from tenfold.launcher.job.history.goodput import KINDS, Goodput, step_time_text
from tenfold.launcher.report_page.charts import Stretch, strip
from tenfold.launcher.report_page.markup import Child, Markup, join, table, tag
from tenfold.launcher.report_page.run_files import RunFiles
from tenfold.launcher.report_page.series import percents

# The class in the style sheet of each kind of time.
_CLASSES = {
    "steps": "training", "input": "waiting", "exchange": "communication",
    "evaluation": "evaluation", "checkpoint": "saving", "start": "starting", "build": "building",
    "restart": "restarted", "lost": "fault", "end": "ending",
}  # fmt: skip
assert _CLASSES.keys() == KINDS.keys()


def goodput(run: RunFiles) -> Markup | None:
    """Return the goodput as a figure, a bar and a table; None for a program without steps."""
    found = run.goodput
    if found is None or not found.seconds:
        return None
    parts = [(kind, seconds) for kind, seconds in found.parts.items() if seconds]
    shares = percents([seconds for _, seconds in parts])
    stretches, begin = [], 0.0
    rows: list[tuple[Child, ...]] = []
    for (kind, seconds), share in zip(parts, shares, strict=True):
        end = begin + seconds / found.seconds
        text = f"{KINDS[kind]}: {format_duration(seconds)}, {share} %"
        stretches.append(Stretch(begin, end, _CLASSES[kind], text))
        begin = end
        name = join(tag("i", cls=f"key {_CLASSES[kind]}"), KINDS[kind])
        rows.append((name, format_duration(seconds), f"{share} %"))
    lead = join(
        tag("b", f"{100 * found.share:.0f} %"),
        f" of {format_duration(found.seconds)} was spent in {KINDS['steps']}.",
    )
    earlier = run.launches - 1
    only = f"Only the last of {earlier + 1} launches is counted." if earlier > 0 else None
    return tag(
        "section",
        tag("h2", "Goodput"),
        tag(
            "div",
            tag("p", lead, cls="figure"),
            strip(stretches, label="the wall time by what it was spent on"),
            table(("time", "duration", "share"), rows, numbers=" nn"),
            tag("p", only, cls="muted") if only else None,
            _pace(found),
            cls="card goodput",
        ),
    )


def _pace(found: Goodput) -> Markup | None:
    """Return the time of a step before the exchange, by worker; None where it is not measured."""
    if not found.before_exchange_s:
        return None
    slowest = max(found.before_exchange_s) or 1.0
    cells: list[Child] = []
    for worker, seconds in enumerate(found.before_exchange_s):
        text = step_time_text(seconds)
        cls = "fault" if worker == found.slow_worker else "training"
        bar = strip([Stretch(0, seconds / slowest, cls, text)], label=f"worker {worker}: {text}")
        cells += [tag("span", f"worker {worker}"), tag("div", bar), tag("span", text, cls="num")]
    sentence = found.slow_sentence()
    verdict = (
        tag("p", sentence[:1].upper() + sentence[1:] + ".", cls="warn")
        if sentence
        else tag("p", "No worker is clearly slower than the others.", cls="muted")
    )
    title = tag("h3", "Time of a step before the exchange of gradients")
    return join(title, verdict, tag("div", *cells, cls="rows three"))
