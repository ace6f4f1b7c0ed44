"""The two errors that the command line prints as one line, and the hint for misspelt names."""

from collections.abc import Iterable


class UserError(ValueError):
    """The user's input is wrong. The message is one line: the thing, its value, rule and remedy.

    The command line prints it without a traceback and exits with status 2.
    """


class JobError(RuntimeError):
    """Valid work failed, as for a full disk or a lost worker.

    The command line prints it without a traceback and exits with status 1.
    """


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """Return the hint for an unknown `name`: its nearest known name, or the choices.

    Args:
      name: the unknown name, as the user wrote it.
      known: the names that are valid here.
      otherwise: the hint where no known name is near; "" lists all of them.

    Returns:
      ``did you mean 'x'?`` or, where no known name is near, ``there are: x, y, z``.
    """
    # Imported on use: every command imports this module, and hints are rare.
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(name, names, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return otherwise or f"there are: {', '.join(names)}"
