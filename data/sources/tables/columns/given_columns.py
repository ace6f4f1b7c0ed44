"""``--columns``: the columns to take from a table, and their types. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tenfold.data.errors import UserError, did_you_mean

TYPES: Final = ("float", "int64", "text")
_OTHERS: Final = "*"


@dataclass(frozen=True)
class GivenColumns:
    """The columns of ``--columns=a:float,b,*``.

    Attributes:
      types: The type of each column: one of TYPES, or "" to infer it.
      others: Whether columns that are not listed are taken, too.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    others: bool = True

    def takes(self, name: str) -> bool:
        """Whether the column, or one that is flattened from it, is taken."""
        return self.others or any(
            given == name or given.startswith(f"{name}.") or name.startswith(f"{given}.")
            for given in self.types
        )

    def check(self, names: Iterable[str]) -> None:
        """Check that all listed columns exist.

        Raises:
          UserError: a listed column is not among `names`.
        """
        known = list(names)
        for given in self.types:
            if not any(name == given or name.startswith(f"{given}.") for name in known):
                raise UserError(
                    f"--columns: there is no column '{given}': {did_you_mean(given, known)}"
                )


def parse_columns(text: str) -> GivenColumns:
    """Return the columns that ``a:float,b:int64,c:text`` lists; ``*`` stands for all others.

    Raises:
      UserError: a type is unknown, or a column is listed twice.
    """
    if not text:
        return GivenColumns()
    types: dict[str, str] = {}
    others = False
    for item in text.split(","):
        name, colon, kind = item.strip().rpartition(":")
        if not colon:
            name, kind = kind, ""
        if name == _OTHERS and not kind:
            others = True
            continue
        if not name or (colon and kind not in TYPES):
            hint = did_you_mean(kind, TYPES) if name else "write NAME:TYPE,NAME:TYPE"
            raise UserError(f"--columns: '{item.strip()}' is no column with a type: {hint}")
        if name in types:
            raise UserError(f"--columns: column '{name}' is listed twice")
        types[name] = kind
    return GivenColumns(types, others)
