"""The versions of TensorFlow that the reader and the trainer run with."""

import re
import socket
import sys
from typing import Final

from tenfold.data.errors import UserError

# The requirement of pyproject.toml; `scripts/test_tensorflow` tests the versions from here on.
OLDEST: Final = (2, 16)
REQUIREMENT: Final = f"tensorflow>={OLDEST[0]}.{OLDEST[1]}"
_NUMBERS: Final = re.compile(r"(\d+)\.(\d+)")


def version_problem(version: str | None, *, where: str) -> str:
    """Return the problem of a TensorFlow and its remedy, "" if it is in the range.

    Args:
      version: as ``2.17.0+nv25.2``; None if TensorFlow is not installed.
      where: the interpreter and its host, which begin the text.
    """
    numbers = _NUMBERS.match(version or "")
    if numbers and (int(numbers[1]), int(numbers[2])) >= OLDEST:
        return ""
    found = f"has TensorFlow {version}, which is too old" if version else "has no TensorFlow"
    return (
        f"{where} {found}: run 'pip install \"{REQUIREMENT}\"' there, or launch a program of your "
        "own ('tenfold launch -- program'), which runs with any version and without one"
    )


def require_tensorflow() -> None:
    """Import TensorFlow.

    Raises:
      UserError: it is not installed, or too old.
    """
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        version = None
    else:
        version = tensorflow.__version__
    where = f"{sys.executable} on {socket.gethostname()}"
    if problem := version_problem(version, where=where):
        raise UserError(problem)
