"""The whole page: one HTML text without external resources. Pure, but reads the style sheet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tenfold.launcher.report_page.banner import judge_run
from tenfold.launcher.report_page.markup import Markup, tag
from tenfold.launcher.report_page.run_files import RunFiles
from tenfold.launcher.report_page.sections import (
    sections_compare,
    sections_goodput,
    sections_machine,
    sections_outcome,
)
from tenfold.launcher.report_page.timeline import build_timeline

# The browser refuses scripts and external resources, whatever the texts of a run contain.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render_page(run: RunFiles, *, refresh_s: float | None = None) -> str:
    """Return the page on `run` as HTML.

    Args:
      run: the contents of the run directory.
      refresh_s: seconds after which the page of a running job reloads itself; None: never.
    """
    is_running = run.state == "running"
    timeline = build_timeline(run.events, now=run.read_at if is_running else None)
    verdict = judge_run(sections_outcome.run_values(run))
    refresh = refresh_s if is_running else None
    body = tag(
        "body",
        sections_outcome.header(run, verdict),
        sections_outcome.banner(verdict),
        sections_goodput.goodput(run),
        sections_outcome.tiles(run, timeline),
        sections_outcome.failures(run),
        sections_outcome.curves(run),
        sections_machine.times(run, timeline),
        sections_outcome.recoveries(run),
        sections_outcome.host_changes(run),
        sections_outcome.receipts(run),
        sections_machine.shards(run),
        sections_machine.environment(run),
        sections_machine.footer(run, refresh_s=refresh),
    )
    return _document(f"{run.name}: {run.state}", body, refresh_s=refresh)


def render_comparison(runs: Sequence[RunFiles]) -> str:
    """Return the page that compares several runs as HTML."""
    body = tag(
        "body",
        sections_compare.comparison_header(runs),
        sections_compare.flags_section(runs),
        sections_compare.figures_section(runs),
        sections_compare.overlaid_curves(runs),
    )
    return _document(f"Comparison: {', '.join(sections_compare.run_names(runs))}", body)


def _document(title: str, body: Markup, *, refresh_s: float | None = None) -> str:
    return f"<!doctype html>\n{tag('html', _head(title, refresh_s), body, lang='en')}\n"


def _head(title: str, refresh_s: float | None) -> Markup:
    style = Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))
    reload = tag("meta", http_equiv="refresh", content=f"{refresh_s:g}") if refresh_s else None
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        reload,
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", style),
    )
