"""The argv that runs a module of this package as a program."""

import sys
from collections.abc import Sequence


def module_argv(
    module: str, arguments: Sequence[str] = (), *, python: str = sys.executable
) -> tuple[str, ...]:
    """Return the argv that runs `module` without the current folder on its sys.path.

    The user's folder may hold packages called ``data`` or ``models``, or a ``json.py``.
    ``python -P`` exists from 3.11 on; older versions run a short program instead.
    """
    if sys.version_info >= (3, 11):
        return (python, "-P", "-m", module, *arguments)
    return remote_module_argv(module, arguments, python=python)


def remote_module_argv(
    module: str, arguments: Sequence[str] = (), *, python: str
) -> tuple[str, ...]:
    """Return the same for an interpreter of any version, on another host."""
    program = (
        "import runpy, sys; sys.path = [place for place in sys.path if place]; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return (python, "-c", program, *arguments)
