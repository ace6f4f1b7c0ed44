"""HTML that is escaped by construction: every string that is not Markup is escaped as text."""

import html
from typing import Final

VOID: Final = frozenset({"meta", "link", "br"})

# SVG shapes, written as <path/> if they have no children.
_SHAPES: Final = frozenset({"path", "rect", "circle", "line"})


class Markup(str):
    """Text that is HTML already. Only this module assembles it."""

    __slots__ = ()


Child = Markup | str | int | float | None


def tag(name: str, /, *children: Child, **attributes: Child) -> Markup:
    """Return an element.

    Args:
      name: the name of the element.
      children: Markup, or values that are escaped as text; None is left out.
      attributes: ``cls`` is written as class, ``a_b`` as a-b; None is left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            shown = "class" if key == "cls" else key.rstrip("_").replace("_", "-")
            words.append(f'{shown}="{html.escape(str(value))}"')
    opening = " ".join(words)
    if name in VOID:
        return Markup(f"<{opening}>")
    if name in _SHAPES and not children:
        return Markup(f"<{opening}/>")
    return Markup(f"<{opening}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Return the concatenated children; those that are not Markup are escaped."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(str(child))
            for child in children
            if child is not None
        )
    )


def table(head: tuple[Child, ...], rows: list[tuple[Child, ...]], *, numbers: str = "") -> Markup:
    """Return a table that scrolls sideways if it is too wide.

    Args:
      head: the titles of the columns.
      rows: the cells of each row.
      numbers: a letter per column; ``n`` aligns the column to the right.
    """
    kinds = ["num" if kind == "n" else None for kind in numbers.ljust(len(head))]
    first = join(*(tag("th", cell, cls=kind) for cell, kind in zip(head, kinds, strict=True)))
    body = [
        tag("tr", *(tag("td", cell, cls=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    inner = tag("table", tag("thead", tag("tr", first)), tag("tbody", *body))
    return tag("div", inner, cls="scroll", tabindex="0")
