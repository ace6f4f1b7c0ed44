"""Inline SVG: a chart of curves, and a strip of coloured stretches. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.launcher.report_page.markup import Markup, join, tag
from tenfold.launcher.report_page.series import Point, Series, finite, show, thin, ticks

WIDTH: Final = 480
HEIGHT: Final = 220
LEFT: Final = 50
RIGHT: Final = 12
TOP: Final = 10
BOTTOM: Final = 24
MAX_TIPS: Final = 60
STRIP: Final = 1000


@dataclass(frozen=True)
class _Frame:
    """The part of the drawing that the curves fill: data in, SVG units out."""

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
    """Return a figure of curves over `x_name`; a legend tells each one's last value.

    Values that are infinite or NaN are left out, and the figure says so.
    """
    drawn = [Series(one.name, finite(one.points), one.style) for one in series]
    left_out = sum(len(one.points) for one in series) - sum(len(one.points) for one in drawn)
    drawn = [one for one in drawn if one.points]
    caption = tag("figcaption", tag("b", title), *_legend(drawn, show_y))
    lost = f"{left_out:,} values are infinite or not a number" if left_out else None
    note = tag("p", lost, cls="bad") if lost else None
    if not drawn:
        return tag("figure", caption, note or tag("p", "nothing yet", cls="muted"))
    frame = _frame(drawn)
    shapes = [_axes(frame, show_y), *(_curve(one, at, frame) for at, one in enumerate(drawn))]
    tips = [_tips(one, frame, x_name, show_y) for one in drawn]
    box = f"0 0 {WIDTH} {HEIGHT}"
    svg = tag("svg", *shapes, *tips, viewBox=box, role="img", aria_label=f"{title} over {x_name}")
    return tag("figure", caption, svg, note)


def _legend(series: Sequence[Series], show_y: Callable[[float], str]) -> list[Markup]:
    return [
        tag("span", tag("i", cls=f"key k{at}"), f"{one.name} {show_y(one.points[-1][1])}")
        for at, one in enumerate(series)
    ]


def _frame(series: Sequence[Series]) -> _Frame:
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    low, high = min(ys), max(ys)
    if 0 <= low <= high / 2:  # from nought, unless that would flatten the curve
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
    for value in ticks(frame.x_low, frame.x_high, most=6):
        if frame.x_low <= value <= frame.x_high:
            x, y = frame.x(value), HEIGHT - 6
            parts.append(tag("text", show(value), x=x, y=y, cls="tick", text_anchor="middle"))
    return join(*parts)


def _curve(series: Series, at: int, frame: _Frame) -> Markup:
    points = [(frame.x(x), frame.y(y)) for x, y in thin(series.points)]
    dots = [tag("circle", cx=x, cy=y, r=3, cls=f"dot f{at}") for x, y in points]
    if series.style == "dots" or len(points) == 1:
        path = _path(points, f"s{at}") if len(points) > 1 else None
        return join(path, *(dots if len(dots) <= MAX_TIPS else ()))
    return _path(points, f"s{at}" + (" faint" if series.style == "faint" else ""))


def _path(points: Sequence[Point], cls: str) -> Markup:
    return tag("path", d="M" + "L".join(f"{x} {y}" for x, y in points), cls=f"curve {cls}")


def _tips(
    series: Series, frame: _Frame, x_name: str, show_y: Callable[[float], str]
) -> Markup | None:
    """Return invisible discs that tell a point's figures to a pointer."""
    every = -(-len(series.points) // MAX_TIPS)
    told = series.points[::-1][::every]
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
            for x, y in told
        )
    )


@dataclass(frozen=True)
class Stretch:
    """A part of a strip, from `begin` to `end` (shares of the whole, 0 to 1)."""

    begin: float
    end: float
    cls: str
    text: str


def strip(stretches: Sequence[Stretch], *, label: str, marks: Sequence[Stretch] = ()) -> Markup:
    """Return a bar as wide as its place: stretches, and above them marks as thin lines."""
    parts = [_rect(one) for one in stretches]
    for mark in marks:
        at = min(mark.begin, 1 - 4 / STRIP)
        parts.append(_rect(Stretch(at, at + 4 / STRIP, mark.cls, mark.text)))
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


def _rect(one: Stretch) -> Markup:
    width = max(STRIP * (one.end - one.begin), 0.5)
    return tag(
        "rect",
        tag("title", one.text),
        x=round(STRIP * one.begin, 2),
        y=0,
        width=round(width, 2),
        height=10,
        cls=one.cls,
    )
