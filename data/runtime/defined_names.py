"""The names that a Python file defines, read from its text: nothing of it is run."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenfold.data.errors import UserError


@dataclass(frozen=True)
class DefinedNames:
    """The names at the top level of a file.

    Attributes:
      functions, classes: public ones, in their order.
      every: all names, assigned and imported ones included; None where they cannot be told
        from the text, as with ``from x import *``.
    """

    functions: tuple[str, ...]
    classes: tuple[str, ...]
    every: frozenset[str] | None


def defined_names(path: Path) -> DefinedNames:
    """Return the names that the file at `path` defines.

    Raises:
      UserError: it is not Python; the message names the line.
    """
    try:
        statements = list(_statements(ast.parse(path.read_bytes()).body))
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}") from None
    except ValueError as error:  # null bytes
        raise UserError(f"{path} is not Python: {error}") from None
    names = {name for statement in statements for name in _names_of(statement)}
    is_open = bool(names & {"*", "__getattr__"}) or _changes_globals(statements)
    return DefinedNames(
        _public(statements, (ast.FunctionDef,)),
        _public(statements, (ast.ClassDef,)),
        None if is_open else frozenset(names),
    )


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a file, also those inside of ``if``, ``try``, ``with`` and loops."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, field, []))
        for inner in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
            yield from _statements(inner.body)


def _names_of(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield statement.name
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name.split(".")[0] for alias in statement.names)
        case _:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id


def _changes_globals(statements: Sequence[ast.stmt]) -> bool:
    called = {"globals", "exec", "vars", "setattr"}
    return any(
        isinstance(node, ast.Name) and node.id in called
        for statement in statements
        for node in ast.walk(statement)
    )


def _public(statements: Sequence[ast.stmt], kinds: tuple[type, ...]) -> tuple[str, ...]:
    found = [s.name for s in statements if isinstance(s, kinds)]  # type: ignore[attr-defined]
    return tuple(dict.fromkeys(name for name in found if not name.startswith("_")))
