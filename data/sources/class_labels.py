"""From the labels of a source to class indices 0 … n-1. Pure.

Every source maps its labels here. The names of the classes are the mapping: class i of the
manifest is the label `label_names[i]`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.format.example import varint
from tenfold.data.format.manifest import MAX_CLASSES
from tenfold.data.units import plural

Label: TypeAlias = int | str

# Whole numbers other than 0 … n-1 are classes if they are few, or if each of them is frequent.
# Ids and amounts hardly repeat.
_FEW: Final = 20
_MANY: Final = 1_000
_FREQUENT: Final = 10
_SHOWN: Final = 3


@dataclass(frozen=True)
class LabelMap:
    """The classes of a source.

    Attributes:
      indices: the class index of each label; empty if labels are stored as they are.
      names: the name of each class; () if the classes have no names, or there are none.
      num_classes: the number of classes; 0 if labels are no classes.
      note: a remark for the user on labels that change, or that are no classes; "" for none.
    """

    indices: Mapping[Label, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    num_classes: int = 0
    note: str = ""

    def stored(self, label: Any) -> Any:
        """Return the label as it is stored: its class index, or the label unchanged.

        Args:
          label: a text, bytes of a text, or a number.

        Raises:
          ValueError: the label is empty, or did not occur when the classes were determined.
        """
        if not self.indices:
            return label
        key = plain_label(label)
        if key not in self.indices:
            raise ValueError("its label is empty" if key == "" else f"it has no class: {key!r}")
        return self.indices[key]


NO_CLASSES: Final = LabelMap()


def plain_label(value: Any) -> Any:
    """Return a label as `Label`: bytes as text, numpy scalars and arrays of one as scalars."""
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "backslashreplace")
    return value


class DistinctLabels:
    """Counts the labels of a source; of whole numbers, MAX_CLASSES + 1 different ones suffice."""

    def __init__(self) -> None:
        self.counts: dict[Label, int] = {}
        self.records = 0

    def add(self, value: Any) -> None:
        """Count one record with the label `value`; a label that is no scalar is no class."""
        label = plain_label(value)
        self.records += 1
        if not isinstance(label, (str, int)):
            return
        if label in self.counts:
            self.counts[label] += 1
        elif isinstance(label, str) or len(self.counts) <= MAX_CLASSES:
            self.counts[label] = 1

    def mapping(self, classes: Sequence[str] | None) -> LabelMap:
        """Return the classes; see `map_labels`."""
        return map_labels(self.counts, records=self.records, classes=classes)

    def growth(self, mapping: LabelMap) -> int:
        """Return the number of bytes by which `mapping` changes the size of all records."""
        return sum(
            count * (_packed_bytes(mapping.indices[label]) - _packed_bytes(label))
            for label, count in self.counts.items()
            if label in mapping.indices
        )


def _packed_bytes(label: Label) -> int:
    """Return the size of a label in an Example, without the heads around it."""
    return len(label.encode()) if isinstance(label, str) else len(varint(label % 2**64))


def known_indices(count: int, classes: Sequence[str] | None = None) -> LabelMap:
    """Return `count` classes whose labels are indices, as those of one-hot vectors are.

    Args:
      count: the number of classes.
      classes: their names, as the user gave them; None for none.

    Raises:
      UserError: there is another number of names.
    """
    if classes and len(classes) != count:
        raise UserError(
            f"--classes has {plural(len(classes), 'class', 'classes')}, the labels have {count:,}"
        )
    return LabelMap(names=tuple(classes or ()), num_classes=count)


def map_labels(
    labels: Collection[Label], *, records: int, classes: Sequence[str] | None = None
) -> LabelMap:
    """Return the classes of the distinct `labels` of a source.

    - Text is mapped to the index of its name, sorted.
    - Whole numbers that are 0 … n-1 stay. Others are mapped in ascending order if there are at
      most 20, or at most 1,000 that occur 10 times on average. Else they are numbers, as ages
      and ids are, not classes, and stay.
    - Floats are no classes: do not pass them.

    Args:
      labels: the distinct labels, all text or all whole numbers; an empty text is ignored.
      records: the number of records that they come from.
      classes: the names of the classes in order, as the user gave them; () for no classes, None
        to decide by the labels.

    Raises:
      UserError: a label is not among `classes`, or there are both texts and numbers.
    """
    texts = sorted({label for label in labels if isinstance(label, str) and label})
    numbers = sorted({int(label) for label in labels if not isinstance(label, str)})
    if texts and numbers:
        raise UserError(
            f"some labels are text, as '{texts[0]}', and some are numbers, as {numbers[0]}: "
            "write all of them as text"
        )
    if classes is not None:
        return _given_classes(texts or numbers, tuple(classes))
    if numbers:
        return _whole_numbers(numbers, records)
    return LabelMap(_numbered(texts), tuple(texts), len(texts))


def _given_classes(labels: Sequence[Label], classes: tuple[str, ...]) -> LabelMap:
    """Return the classes that the user gave, for the distinct `labels`."""
    if not classes:
        return LabelMap()
    indices = _numbered(classes)
    unknown = [label for label in labels if str(label) not in indices]
    if not unknown:
        found = {label: indices[str(label)] for label in labels}
        changed = any(label != index for label, index in found.items())
        return LabelMap(found if changed else {}, classes, len(classes))
    if all(isinstance(label, int) and 0 <= label < len(classes) for label in labels):
        return LabelMap(names=classes, num_classes=len(classes))
    raise unknown_class(str(unknown[0]), classes)


def unknown_class(label: str, classes: Sequence[str]) -> UserError:
    """Return the error for a label, or a class folder, that --classes does not have."""
    choices = f"add it to the {plural(len(classes), 'class', 'classes')}, or leave it out"
    hint = did_you_mean(label, classes, otherwise=choices)
    return UserError(f"label '{label}' is not among the classes of --classes: {hint}")


def _whole_numbers(numbers: list[int], records: int) -> LabelMap:
    count, shown = len(numbers), _shown(numbers)
    if numbers == list(range(count)):
        return LabelMap(num_classes=count if count <= MAX_CLASSES else 0)
    frequent = count <= _MANY and records >= _FREQUENT * count
    if count > _FEW and not frequent:
        many = f"more than {MAX_CLASSES:,}" if count > MAX_CLASSES else f"{count:,}"
        return LabelMap(
            note=f"label: {many} different whole numbers ({shown}) are no classes and stay "
            "numbers; --classes=FILE lists classes"
        )
    names = tuple(map(str, numbers))
    return LabelMap(
        dict(zip(numbers, range(count), strict=True)),
        names,
        count,
        f"label: the {plural(count, 'class', 'classes')} {shown} are stored as "
        f"{_shown(range(count))}; --classes=none keeps the numbers, --classes=N as N classes",
    )


def _numbered(names: Sequence[str]) -> dict[Label, int]:
    return {name: index for index, name in enumerate(names)}


def _shown(numbers: Sequence[int]) -> str:
    """Return the numbers, or the first few and the last one."""
    if len(numbers) <= _SHOWN + 1:
        return ", ".join(map(str, numbers))
    return f"{', '.join(map(str, numbers[:_SHOWN]))}, … {numbers[-1]}"


def parse_classes(text: str, read: Callable[[str], bytes | None]) -> tuple[str, ...] | None:
    """Return the classes that ``--classes=`` gives.

    Args:
      text: a file with one name a line; names joined by commas; the number of classes, whose
        names are 0 … n-1; ``none`` for no classes; "" to decide by the labels.
      read: returns the content of a file at a path or URL, or None if there is none.

    Raises:
      UserError: there is no such file, it is no text, or two classes have one name.
    """
    if text in ("", "none"):
        return () if text else None
    if text.isdecimal():
        if not 1 <= int(text) <= MAX_CLASSES:
            raise UserError(f"--classes={text}: the number of classes is 1 to {MAX_CLASSES:,}")
        return tuple(map(str, range(int(text))))
    names = [name.strip() for name in _class_lines(text, read)]
    while names and not names[-1]:
        names.pop()
    if not names or "" in names:
        raise UserError(f"--classes={text}: line {names.index('') + 1 if names else 1} is empty")
    for name, times in Counter(names).items():
        if times > 1 or not name.isprintable():
            rule = "occurs twice" if name.isprintable() else "cannot be shown"
            raise UserError(f"--classes={text}: the class {name!r} {rule}: give each a name once")
    return tuple(names)


def _class_lines(text: str, read: Callable[[str], bytes | None]) -> list[str]:
    data = read(text)
    if data is None:
        if "," not in text:
            raise UserError(
                f"--classes={text}: there is no such file; give a file with a class per line, "
                "names as cat,dog, their number, or none"
            )
        return text.split(",")
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"--classes={text}: the file is no text in UTF-8 ({error})") from None
