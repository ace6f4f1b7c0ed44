"""HTML that is escaped by construction: whatever is not Markup is text, and is escaped."""

import html
from typing import Final

VOID: Final = frozenset({"meta", "link", "br"})

# The shapes of SVG that close themselves.
_SHAPES: Final = frozenset({"path", "rect", "circle", "line"})


class Markup(str):
    """Text that is HTML already. Only this module makes it of parts."""

    __slots__ = ()


Child = Markup | str | int | float | None


def tag(name: str, /, *children: Child, **attributes: Child) -> Markup:
    """Return an element. Attributes: ``cls`` is class, ``a_b`` is a-b; None leaves one out."""
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
    """Return the children one after the other, escaped where they are not Markup."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(str(child))
            for child in children
            if child is not None
        )
    )


def table(head: tuple[Child, ...], rows: list[tuple[Child, ...]], *, numbers: str = "") -> Markup:
    """Return a table that scrolls sideways where it is too wide.

    `numbers` has a letter per column: ``n`` for one of numbers, set to the right.
    """
    kinds = ["num" if kind == "n" else None for kind in numbers.ljust(len(head))]
    first = join(*(tag("th", cell, cls=kind) for cell, kind in zip(head, kinds, strict=True)))
    body = [
        tag("tr", *(tag("td", cell, cls=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    inner = tag("table", tag("thead", tag("tr", first)), tag("tbody", *body))
    return tag("div", inner, cls="scroll", tabindex="0")
