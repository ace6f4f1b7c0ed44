"""The two errors that the command line prints as one line, and the texts of further messages."""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from typing import Final

_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class UserError(ValueError):
    """The user's input is wrong. The message is one line: the thing, its value, rule and remedy.

    The command line prints it without a traceback and exits with status 2.
    """


class JobError(RuntimeError):
    """Valid work failed, as for a full disk or a lost worker.

    The command line prints it without a traceback and exits with status 1.
    """


@contextlib.contextmanager
def naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give errors of the operating system the path that they lack, as those of writing do."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = os.fspath(path)
        raise


def os_error_text(error: OSError) -> str:
    """Return the message of `error`; where a disk is full, with the remedy."""
    if error.errno not in _DISK_FULL:
        return str(error)
    where = f" for '{error.filename}'" if error.filename else ""
    return (
        f"{error.strerror}{where}: free some (old runs, checkpoints, logs), then run the "
        "same command again"
    )


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
