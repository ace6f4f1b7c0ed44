"""The splits that the user asks for, and the number of examples that each gets. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import check_split_name
from tenfold.data.planning.permutation import Permutation
from tenfold.data.planning.splits.split_names import standard_split_name
from tenfold.data.units import plural

# Fractions as 0.7 + 0.2 + 0.1 do not sum to 1 exactly.
_ROUNDING: Final = 1e-9
_PART_OF_SOURCES: Final = re.compile(r"(?:^|,)\s*([A-Za-z][A-Za-z0-9_]*)=")


@dataclass(frozen=True)
class SplitFraction:
    """A split's name and its share of the examples, above 0 and at most 1.

    A share of None keeps the split of this name that the source has itself.
    """

    name: str
    fraction: float | None

    def __post_init__(self) -> None:
        check_split_name(self.name)
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise UserError(
                f"split '{self.name}' has the fraction {self.fraction:g}: "
                "it must be above 0 and at most 1"
            )


def parse_splits(text: str) -> tuple[SplitFraction, ...]:
    """Return the splits that ``train:0.9,validation:0.1`` names, by their standard names.

    Names without a fraction stand for splits that the source has itself; "" names none.

    Raises:
      UserError: a name or fraction is wrong, a name comes twice, or the sum is not 1.
    """
    if not text.strip():
        return ()
    splits = tuple(_parse_split(part.strip()) for part in text.split(","))
    check_fractions(splits, f"--split={text}")
    return splits


def parse_split_sources(text: str) -> dict[str, str]:
    """Return the source of each split in ``train=SOURCE,validation=SOURCE2``, else {}.

    A comma separates two splits only where NAME= follows, so that a source may hold commas.

    Raises:
      UserError: a split has no source, or comes twice.
    """
    begins = list(_PART_OF_SOURCES.finditer(text))
    if not begins or begins[0].start() > 0:
        return {}
    ends = [begin.start() for begin in begins[1:]] + [len(text)]
    sources: dict[str, str] = {}
    for begin, end in zip(begins, ends, strict=True):
        name, source = standard_split_name(begin[1]), text[begin.end() : end].strip()
        if not source:
            raise UserError(f"--split={text}: split '{name}' has no source: write {name}=PATH")
        if name in sources:
            raise UserError(f"--split={text}: split '{name}' comes twice")
        sources[name] = source
    return sources


def check_fractions(splits: Sequence[SplitFraction], where: str) -> None:
    """Check that no name comes twice and that the fractions, if any, sum to 1.

    `where` names the place of the splits in the message.

    Raises:
      UserError: they do not.
    """
    names = [split.name for split in splits]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: split '{name}' comes twice (val, valid and dev name "
                            "'validation' too)")  # fmt: skip
    total = sum(split.fraction for split in splits if split.fraction is not None)
    if any(split.fraction is not None for split in splits) and abs(total - 1) > _ROUNDING:
        raise UserError(f"{where}: the fractions sum to {total:g}, they must sum to 1")


def _parse_split(text: str) -> SplitFraction:
    name, colon, number = text.partition(":")
    check_split_name(name)
    try:
        return SplitFraction(standard_split_name(name), float(number) if colon else None)
    except ValueError:  # no number, or a fraction out of range
        raise UserError(
            f"split '{text}': write NAME:FRACTION with a fraction above 0, at most 1"
        ) from None


def split_counts(num_examples: int, splits: Sequence[SplitFraction]) -> tuple[int, ...]:
    """Return the number of examples of each split: cumulative fractions, rounded.

    The numbers sum to `num_examples`.

    Raises:
      UserError: a split would be empty.
    """
    bounds = [0]
    share = 0.0
    for fraction in _fractions(splits):
        share += fraction
        bounds.append(round(num_examples * share))
    bounds[-1] = num_examples
    counts = tuple(end - start for start, end in pairwise(bounds))
    check_filled(splits, counts, plural(num_examples, "example"))
    return counts


def check_filled(splits: Sequence[SplitFraction], counts: Sequence[int], dealt: str) -> None:
    """Check that every split gets something; `dealt` tells what is divided.

    Raises:
      UserError: a split is empty.
    """
    for split, count in zip(splits, counts, strict=True):
        if count < 1:
            raise UserError(
                f"split '{split.name}' gets none of {dealt} "
                f"at a fraction of {split.fraction:g}: raise the fraction"
            )


def group_splits(
    sizes: Sequence[int], splits: Sequence[SplitFraction], *, seed: int
) -> tuple[int, ...]:
    """Return the index of the split of each group, so that all of a group is in one split.

    The largest groups are placed first, each into the split that lacks the largest part of its
    own share among those with room for it, or into the one with most room if it fits nowhere;
    `seed` orders groups of equal size. Every split gets a group.

    Args:
      sizes: the number of examples of each group.
      splits: the splits, with fractions.
      seed: the seed of the write.

    Raises:
      UserError: there are fewer groups than splits.
    """
    if len(sizes) < len(splits):
        raise UserError(
            f"{plural(len(sizes), 'group')} cannot fill {len(splits)} splits: name fewer splits"
        )
    total = sum(sizes)
    targets = [max(total * fraction, 1e-9) for fraction in _fractions(splits)]
    room = list(targets)
    empty = set(range(len(splits)))
    chosen = [0] * len(sizes)
    shuffled = list(Permutation(len(sizes), seed))
    shuffled.sort(key=lambda group: -sizes[group])
    for placed, group in enumerate(shuffled):
        size = sizes[group]
        # The last groups go to the splits that have none yet.
        allowed = empty if len(sizes) - placed <= len(empty) else range(len(splits))
        fitting = [split for split in allowed if room[split] >= size]
        split = (
            max(fitting, key=lambda s: (room[s] / targets[s], -s))
            if fitting
            else max(allowed, key=lambda s: (room[s], -s))
        )
        chosen[group] = split
        room[split] -= size
        empty.discard(split)
    return tuple(chosen)


def stratum_counts(
    sizes: Sequence[int], splits: Sequence[SplitFraction]
) -> tuple[tuple[int, ...], ...]:
    """Return the number of examples that each stratum gives to each split.

    Each number is a stratum's size times the split's fraction, rounded down or up; roundings of
    one stratum are made good in the next ones, so that the splits keep to their fractions.

    Raises:
      UserError: a split would be empty.
    """
    fractions = _fractions(splits)
    debts = [0.0] * len(splits)
    rows: list[tuple[int, ...]] = []
    for size in sizes:
        ideal = [size * fraction for fraction in fractions]
        counts = [int(share + _ROUNDING) for share in ideal]
        # More splits have a fraction of an example than there are examples left for them.
        open_splits = [s for s in range(len(splits)) if ideal[s] - counts[s] > _ROUNDING]
        open_splits.sort(key=lambda s: -(ideal[s] - counts[s] + debts[s]))
        for split in open_splits[: size - sum(counts)]:
            counts[split] += 1
        debts = [d + i - c for d, i, c in zip(debts, ideal, counts, strict=True)]
        rows.append(tuple(counts))
    totals = [sum(column) for column in zip(*rows, strict=True)]
    check_filled(splits, totals, f"{plural(sum(sizes), 'example')} in {len(sizes)} strata")
    return tuple(rows)


def _fractions(splits: Sequence[SplitFraction]) -> list[float]:
    return [split.fraction for split in splits if split.fraction is not None]
