"""One problem of a host or a cluster that a check has found."""

from dataclasses import dataclass
from typing import Final

ERROR: Final = "error"
WARNING: Final = "warning"


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
      level: ERROR or WARNING.
      check: a word for the check that found it.
      text: the problem and its remedy.
      host: the host's name; "" where several hosts are concerned.
    """

    level: str
    check: str
    text: str
    host: str = ""
