"""How a column of a table is stored."""

from dataclasses import dataclass

from tenfold.data.format.example import Shape


@dataclass(frozen=True)
class ColumnSpec:
    """How a column is stored.

    Attributes:
      name: The feature's name.
      kind: ``float``, ``int64`` or ``bytes``.
      shape: As in `Feature`.
      optional: Whether records may lack the feature.
    """

    name: str
    kind: str
    shape: Shape = ()
    optional: bool = False
