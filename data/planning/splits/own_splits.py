"""What a source knows about its records before they are dealt to splits. Pure values."""

from array import array
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

# Codes of `FeatureValues` for records without a value: the feature is missing, or the record is
# broken, so that writing it will fail or leave it out.
MISSING: Final = -1
BROKEN: Final = -2
# Stands for the value of a broken record in `code_values`: a number could be a value.
BROKEN_RECORD: Final[Any] = object()


@dataclass(frozen=True)
class OwnSplit:
    """A split that the source has itself: the next `examples` of its examples, in their order."""

    name: str
    examples: int


@dataclass(frozen=True)
class FeatureValues:
    """The values of one feature over all examples, each distinct value stored once.

    Attributes:
      codes: for each example the index of its value in `values`; or MISSING, or BROKEN. 8 bytes
        each, as in an ``array("q")`` or a numpy int64 [n].
      values: the distinct values (text, numbers) in the order of their first example.
    """

    codes: Sequence[int]
    values: tuple[Hashable, ...]


def code_values(values: Iterable[Any]) -> FeatureValues:
    """Return values with each distinct one stored once.

    Args:
      values: hashable values in the order of the examples; None where one is missing, and
        BROKEN_RECORD where the record is broken.
    """
    codes = array("q")
    distinct: dict[Hashable, int] = {}
    for value in values:
        if value is None:
            codes.append(MISSING)
        elif value is BROKEN_RECORD:
            codes.append(BROKEN)
        else:
            codes.append(distinct.setdefault(value, len(distinct)))
    return FeatureValues(codes, tuple(distinct))
