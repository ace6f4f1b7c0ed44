"""The two errors that the command line turns into one line and an exit status."""

from collections.abc import Iterable


class UserError(ValueError):
    """What the user gave us is wrong: one line that names the thing, the rule and the way out.

    The command line prints it without a traceback and exits with status 2.
    """


class JobError(RuntimeError):
    """What was asked for is right but failed (a full disk, a lost worker): exit status 1."""


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
