"""Inline SVG: line charts, and bars of coloured stretches. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from tenfold.data.units import plural
from tenfold.launcher.report_page.axis import Axis, step_axis, value_axis
from tenfold.launcher.report_page.markup import Markup, join, tag
from tenfold.launcher.report_page.series import Point, Series, finite, show, smooth, thin

# A chart and its margins, in SVG units.
WIDTH: Final = 480
HEIGHT: Final = 220
LEFT: Final = 56
RIGHT: Final = 12
TOP: Final = 10
BOTTOM: Final = 24
LINE: Final = 19  # height of a line of text
# Columns of a chart that show their values when pointed at; more are too narrow to point at.
MAX_COLUMNS: Final = 60
STRIP: Final = 1000  # width of a bar, in SVG units


@dataclass(frozen=True)
class ChartLine:
    """A vertical line at `x` of a chart.

    `kind` is its name in the legend and, hyphenated, its class in the style sheet; `text` is its
    tooltip.
    """

    x: float
    kind: str
    text: str


@dataclass(frozen=True)
class _Frame:
    """The area of a chart that the curves fill; maps values to SVG units."""

    across: Axis
    up: Axis

    def x(self, value: float) -> float:
        return round(LEFT + self.across.share(value) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - self.up.share(value) * (HEIGHT - TOP - BOTTOM), 1)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    show_y: Callable[[float], str] = show,
    show_tick: Callable[[float], str] | None = None,
    x_name: str = "step",
    marks: Sequence[ChartLine] = (),
) -> Markup:
    """Return a figure of curves over `x_name` whose legend shows the last value of each curve.

    Pointing at a step shows the values there. Infinite and NaN values are left out; the figure
    states their number. There must be others (see `is_drawable`).

    Args:
      title: the caption.
      series: the curves, up to eight.
      show_y: formats a value.
      show_tick: formats a value of the y axis; default: `show_y`.
      x_name: the name of the x axis, whose values are whole numbers.
      marks: vertical lines; those outside of the curves' range are left out.
    """
    drawn = [
        replace(curve, points=finite(curve.points), colour=_colour(curve, index))
        for index, curve in enumerate(series)
    ]
    left_out = sum(len(curve.points) for curve in series) - sum(len(c.points) for c in drawn)
    drawn = [curve for curve in drawn if curve.points]
    note = tag("p", not_finite_text(left_out), cls="bad") if left_out else None
    frame = _Frame(
        step_axis([x for curve in drawn for x, _ in curve.points]),
        value_axis([y for curve in drawn for _, y in curve.points], show_tick or show_y),
    )
    seen = [mark for mark in marks if frame.across.low <= mark.x <= frame.across.high]
    caption = tag("figcaption", tag("b", title), *_legend(drawn, seen, show_y))
    shapes = [_axes(frame), *(_mark(mark, frame) for mark in seen)]
    shapes += [_curve(curve, frame) for curve in drawn]
    box = f"0 0 {WIDTH} {HEIGHT}"
    readings = _readings(drawn, frame, x_name, show_y)
    label = f"{title} over {x_name}"
    svg = tag("svg", *shapes, readings, viewBox=box, role="img", aria_label=label)
    return tag("figure", caption, svg, note)


def is_drawable(series: Sequence[Series]) -> bool:
    """Return whether the curves have finite values at two steps or more: one makes no chart."""
    return len({x for curve in series for x, _ in finite(curve.points)}) > 1


def not_finite_text(count: int) -> str:
    """Return a sentence on values that are left out."""
    verb = "is" if count == 1 else "are"
    return f"{plural(count, 'value')} {verb} infinite or not a number"


def _legend(
    series: Sequence[Series], marks: Sequence[ChartLine], show_y: Callable[[float], str]
) -> list[Markup]:
    keys = [
        tag(
            "span",
            tag("i", cls=f"key k{curve.colour}"),
            f"{curve.name} {show_y(curve.points[-1][1])}",
        )
        for curve in series
    ]
    kinds = dict.fromkeys(mark.kind for mark in marks)
    return keys + [tag("span", tag("i", cls=f"rule {_hyphenated(kind)}"), kind) for kind in kinds]


def _axes(frame: _Frame) -> Markup:
    parts = []
    for value, text in frame.up.ticks:
        y = frame.y(value)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, cls="grid"))
        parts.append(tag("text", text, x=LEFT - 6, y=y + 4, cls="tick", text_anchor="end"))
    for index, (value, text) in enumerate(frame.across.ticks):
        x, y, anchor = frame.x(value), HEIGHT - 6, "middle"
        if x > WIDTH - RIGHT - 20:  # the label would leave the chart
            x, anchor = WIDTH - 1.0, "end"
        cls = "tick alternate" if index % 2 else "tick"  # a narrow screen shows every other label
        parts.append(tag("text", text, x=x, y=y, cls=cls, text_anchor=anchor))
    return join(*parts)


def _mark(mark: ChartLine, frame: _Frame) -> Markup:
    x = frame.x(mark.x)
    title = tag("title", mark.text)
    return tag(
        "line", title, x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, cls=f"mark {_hyphenated(mark.kind)}"
    )


def _hyphenated(kind: str) -> str:
    return kind.replace(" ", "-")


def _colour(series: Series, index: int) -> int:
    return index if series.colour is None else series.colour


def _curve(series: Series, frame: _Frame) -> Markup:
    """Return a curve; its colour is .s0 to .s7, that of its dots .f0 to .f7 in the style sheet."""
    points = [(frame.x(x), frame.y(y)) for x, y in thin(series.points)]
    colour = f"s{series.colour}"
    if series.style == "dots" or len(points) == 1:
        dots = [tag("circle", cx=x, cy=y, r=3, cls=f"dot f{series.colour}") for x, y in points]
        path = _path(points, colour) if len(points) > 1 else None
        return join(path, *(dots if len(dots) <= MAX_COLUMNS else ()))
    if series.style == "smoothed":
        mean = [(frame.x(x), frame.y(y)) for x, y in thin(smooth(series.points))]
        return join(_path(points, f"{colour} faint"), _path(mean, colour))
    return _path(points, colour + (" faint" if series.style == "faint" else ""))


def _path(points: Sequence[Point], cls: str) -> Markup:
    return tag("path", d="M" + "L".join(f"{x} {y}" for x, y in points), cls=f"curve {cls}")


def _readings(
    series: Sequence[Series], frame: _Frame, x_name: str, show_y: Callable[[float], str]
) -> Markup:
    """Return columns that fill the chart; each shows the values at its step when pointed at.

    The style sheet does that: the page runs no scripts.
    """
    lines = [(curve.name, dict(curve.points)) for curve in series]
    lines += [
        (f"{curve.name}, smoothed", dict(smooth(curve.points)))
        for curve in series
        if curve.style == "smoothed"
    ]
    steps = _columns(series)
    # A column reaches half the way to its neighbours.
    borders = [(frame.x(left) + frame.x(right)) / 2 for left, right in pairwise(steps)]
    edges = [float(LEFT), *borders, float(WIDTH - RIGHT)]
    columns = []
    for step, left, right in zip(steps, edges[:-1], edges[1:], strict=True):
        texts = [f"{name} {show_y(points[step])}" for name, points in lines if step in points]
        reading = _reading([f"{x_name} {show(step)}", *texts], frame.x(step))
        width, height = round(right - left, 1), HEIGHT - TOP - BOTTOM
        target = tag("rect", x=round(left, 1), y=TOP, width=width, height=height)
        columns.append(tag("g", target, reading, cls="column"))
    return join(*columns)


def _columns(series: Sequence[Series]) -> list[float]:
    """Return the steps of the columns: those of dots, and of the others as many as have room."""
    dotted = sorted({x for curve in series if curve.style == "dots" for x, _ in curve.points})
    chosen = set(dotted[:: -(-len(dotted) // MAX_COLUMNS) or 1]) if dotted else set()
    others = sorted({x for curve in series for x, _ in curve.points} - chosen)
    room = MAX_COLUMNS - len(chosen)
    if others and room > 0:
        chosen |= set(others[::-1][:: -(-len(others) // room)])
    return sorted(chosen)


def _reading(lines: Sequence[str], x: float) -> Markup:
    is_left = x < WIDTH / 2
    anchor, at = ("start", x + 6) if is_left else ("end", x - 6)
    texts = [
        tag("text", line, x=round(at, 1), y=TOP + LINE * (1 + index), text_anchor=anchor)
        for index, line in enumerate(lines)
    ]
    return tag("g", tag("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM), *texts, cls="reading")


@dataclass(frozen=True)
class Stretch:
    """A part of a bar, from `begin` to `end` (0 to 1 of its length); `text` is its tooltip."""

    begin: float
    end: float
    cls: str
    text: str


def strip(stretches: Sequence[Stretch], *, label: str, marks: Sequence[Stretch] = ()) -> Markup:
    """Return a bar of stretches, stretched to the width of the page, with marks as thin lines.

    Args:
      stretches: the coloured parts.
      label: a description for screen readers.
      marks: moments drawn on top; their `end` is not used.
    """
    parts = [_rect(stretch) for stretch in stretches]
    for mark in marks:
        begin = min(mark.begin, 1 - 4 / STRIP)
        parts.append(_rect(Stretch(begin, begin + 4 / STRIP, mark.cls, mark.text)))
    box, stretched = f"0 0 {STRIP} 10", "none"
    return tag(
        "svg",
        *parts,
        viewBox=box,
        preserveAspectRatio=stretched,
        cls="strip",
        role="img",
        aria_label=label,
    )


def _rect(stretch: Stretch) -> Markup:
    width = max(STRIP * (stretch.end - stretch.begin), 0.5)
    return tag(
        "rect",
        tag("title", stretch.text),
        x=round(STRIP * stretch.begin, 2),
        y=0,
        width=round(width, 2),
        height=10,
        cls=stretch.cls,
    )
