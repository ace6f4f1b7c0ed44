"""Inline SVG: line charts, and bars of coloured stretches. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.launcher.report_page.markup import Markup, join, tag
from tenfold.launcher.report_page.series import Point, Series, finite, show, thin, ticks

# A chart and its margins, in SVG units.
WIDTH: Final = 480
HEIGHT: Final = 220
LEFT: Final = 50
RIGHT: Final = 12
TOP: Final = 10
BOTTOM: Final = 24
MAX_TIPS: Final = 60  # tooltips per curve; more make the page large and are too close to point at
STRIP: Final = 1000  # width of a bar, in SVG units


@dataclass(frozen=True)
class _Frame:
    """The area of a chart that the curves fill; maps values to SVG units."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / ((self.x_high - self.x_low) or 1)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / ((self.y_high - self.y_low) or 1)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    show_y: Callable[[float], str] = show,
    x_name: str = "step",
) -> Markup:
    """Return a figure of curves over `x_name` whose legend shows the last value of each curve.

    Infinite and NaN values are left out; the figure states their number.

    Args:
      title: the caption.
      series: the curves, up to four.
      show_y: formats a value of the y axis.
      x_name: the name of the x axis.
    """
    drawn = [Series(curve.name, finite(curve.points), curve.style) for curve in series]
    left_out = sum(len(curve.points) for curve in series) - sum(len(c.points) for c in drawn)
    drawn = [curve for curve in drawn if curve.points]
    caption = tag("figcaption", tag("b", title), *_legend(drawn, show_y))
    warning = f"{left_out:,} values are infinite or not a number" if left_out else None
    note = tag("p", warning, cls="bad") if warning else None
    if not drawn:
        return tag("figure", caption, note or tag("p", "no values yet", cls="muted"))
    frame = _frame(drawn)
    shapes = [_axes(frame, show_y)]
    shapes += [_curve(curve, index, frame) for index, curve in enumerate(drawn)]
    tips = [_tips(curve, frame, x_name, show_y) for curve in drawn]
    box = f"0 0 {WIDTH} {HEIGHT}"
    svg = tag("svg", *shapes, *tips, viewBox=box, role="img", aria_label=f"{title} over {x_name}")
    return tag("figure", caption, svg, note)


def _legend(series: Sequence[Series], show_y: Callable[[float], str]) -> list[Markup]:
    return [
        tag("span", tag("i", cls=f"key k{index}"), f"{curve.name} {show_y(curve.points[-1][1])}")
        for index, curve in enumerate(series)
    ]


def _frame(series: Sequence[Series]) -> _Frame:
    xs = [x for curve in series for x, _ in curve.points]
    ys = [y for curve in series for _, y in curve.points]
    low, high = min(ys), max(ys)
    if 0 <= low <= high / 2:  # the axis starts at 0, unless that would flatten the curve
        low = 0.0
    if low == high:
        low, high = (low - 1, high + 1) if low else (0.0, 1.0)
    marks = ticks(low, high)
    return _Frame(min(xs), max(xs), marks[0], marks[-1])


def _axes(frame: _Frame, show_y: Callable[[float], str]) -> Markup:
    parts = []
    for value in ticks(frame.y_low, frame.y_high):
        y = frame.y(value)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, cls="grid"))
        text = show_y(value)
        parts.append(tag("text", text, x=LEFT - 6, y=y + 4, cls="tick", text_anchor="end"))
    for value in ticks(frame.x_low, frame.x_high, max_steps=6):
        if frame.x_low <= value <= frame.x_high:
            x, y = frame.x(value), HEIGHT - 6
            parts.append(tag("text", show(value), x=x, y=y, cls="tick", text_anchor="middle"))
    return join(*parts)


def _curve(series: Series, index: int, frame: _Frame) -> Markup:
    """Return a curve; `index` is its colour in the style sheet (.s0 to .s3, .f0 to .f3)."""
    points = [(frame.x(x), frame.y(y)) for x, y in thin(series.points)]
    dots = [tag("circle", cx=x, cy=y, r=3, cls=f"dot f{index}") for x, y in points]
    if series.style == "dots" or len(points) == 1:
        path = _path(points, f"s{index}") if len(points) > 1 else None
        return join(path, *(dots if len(dots) <= MAX_TIPS else ()))
    return _path(points, f"s{index}" + (" faint" if series.style == "faint" else ""))


def _path(points: Sequence[Point], cls: str) -> Markup:
    return tag("path", d="M" + "L".join(f"{x} {y}" for x, y in points), cls=f"curve {cls}")


def _tips(
    series: Series, frame: _Frame, x_name: str, show_y: Callable[[float], str]
) -> Markup | None:
    """Return invisible discs with the figures of points as tooltips; the last point has one."""
    stride = -(-len(series.points) // MAX_TIPS)
    shown = series.points[::-1][::stride]
    return join(
        *(
            tag(
                "circle",
                tag("title", f"{x_name} {show(x)}: {series.name} {show_y(y)}"),
                cx=frame.x(x),
                cy=frame.y(y),
                r=6,
                cls="tip",
            )
            for x, y in shown
        )
    )


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
