"""Dealing the examples of a source to splits: a pure function of what is known of them.

Each split takes its examples from a pool, a sequence of example numbers, in the order of a seeded
shuffle of that pool. Splits that divide a pool by fractions share it, each taking a part of the
shuffled order; any other split has a pool of its own.
"""

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.format.manifest import check_split_name
from tenfold.data.planning.permutation import Permutation
from tenfold.data.planning.splits.own_splits import BROKEN, MISSING, FeatureValues, OwnSplit
from tenfold.data.planning.splits.split_fractions import (
    SplitFraction,
    group_splits,
    split_counts,
    stratum_counts,
)
from tenfold.data.planning.splits.split_names import standard_split_name
from tenfold.data.planning.splits.split_rule import SplitRule
from tenfold.data.units import plural

# More distinct values than this name no splits.
MAX_SPLITS: Final = 100
_EVERYTHING: Final = (SplitFraction("train", 1.0),)
_USUAL_ORDER: Final = ("train", "validation", "test")
# Shown of a longer list in a note.
_SHOWN: Final = 5


@dataclass(frozen=True)
class SplitMembers:
    """The examples of one split: `examples` of the shuffled `pool` from position `first` on.

    `pool_key` identifies the contents of the pool; "" for all examples of the source.
    """

    name: str
    pool: Sequence[int]
    first: int
    examples: int
    pool_key: str = ""


@dataclass(frozen=True)
class DealtSplits:
    """All splits, and a line on each decision that the user should know of."""

    splits: tuple[SplitMembers, ...]
    notes: tuple[str, ...] = ()


def deal_splits(
    num_examples: int,
    rule: SplitRule,
    *,
    own: Sequence[OwnSplit] = (),
    values: Mapping[str, FeatureValues] | None = None,
    seed: int = 0,
    names: Mapping[str, Sequence[str]] | None = None,
) -> DealtSplits:
    """Return the splits of a source.

    Args:
      num_examples: the number of examples of the source.
      rule: what the user asks for.
      own: the splits that the source has itself.
      values: the values of `rule.features` over all examples.
      seed: the seed of the write.
      names: what to call the values 0, 1, … of a feature in messages, as the names of classes.

    Raises:
      UserError: the rule does not fit the source.
    """
    dealer = _Dealer(num_examples, rule, values or {}, seed, names or {})
    return dealer.deal(own)


class _Dealer:
    """The arguments of `deal_splits`, and the notes so far."""

    def __init__(
        self,
        num_examples: int,
        rule: SplitRule,
        values: Mapping[str, FeatureValues],
        seed: int,
        names: Mapping[str, Sequence[str]],
    ) -> None:
        self.num_examples = num_examples
        self.rule = rule
        self.values = values
        self.seed = seed
        self.names = names
        self.notes: list[str] = []

    def deal(self, own: Sequence[OwnSplit]) -> DealtSplits:
        """Return the splits: those kept and those dealt, in the order of the rule."""
        rule, pools = self.rule, self._existing(own)
        if not pools:
            return DealtSplits(self._without_own(), tuple(self.notes))
        origin = f"by the values of '{rule.feature}'" if rule.feature else "as the source has them"
        if not rule.fractions:
            self.notes.append(f"splits: {_listing(pools)}, {origin}")
            return DealtSplits(
                tuple(self._whole(*item) for item in pools.items()), tuple(self.notes)
            )
        for name in rule.kept:
            if name not in pools:
                raise UserError(
                    f"split '{name}' has no fraction, and the source has no split of this name: "
                    f"{did_you_mean(name, pools)}; or write {name}:FRACTION"
                )
        rest = {name: pool for name, pool in pools.items() if name not in rule.kept}
        if rule.kept:
            self.notes.append(f"splits: {_listing(rule.kept)}, {origin}")
        found = {name: self._whole(name, pools[name]) for name in rule.kept}
        found |= {split.name: split for split in self._dealt_again(rest)}
        return DealtSplits(tuple(found[split.name] for split in rule.fractions), tuple(self.notes))

    def _dealt_again(self, rest: Mapping[str, Sequence[int]]) -> tuple[SplitMembers, ...]:
        """Deal the existing splits `rest` anew, or leave them out if no fraction is asked for."""
        if not rest:
            if self.rule.dealt:
                raise UserError(
                    f"split '{self.rule.dealt[0].name}' has a fraction, but every split of the "
                    "source is kept: nothing is left to divide"
                )
            return ()
        counted = [f"{name} ({plural(len(pool), 'example')})" for name, pool in rest.items()]
        if not self.rule.dealt:
            self.notes.append(
                f"left out, because --split does not name them: {', '.join(counted)}"
            )
            return ()
        self.notes.append(
            f"splits: {', '.join(counted)} of the source dealt anew by the fractions of --split"
        )
        return self._by_fractions(_joined(rest.values()))

    def _without_own(self) -> tuple[SplitMembers, ...]:
        fractions = self.rule.fractions or _EVERYTHING
        everything = range(self.num_examples)
        if len(fractions) == 1:
            return (SplitMembers(fractions[0].name, everything, 0, self.num_examples),)
        if self.rule.kept:
            raise UserError(
                f"split '{self.rule.kept[0]}' has no fraction, and the source has no splits of "
                f"its own: write {self.rule.kept[0]}:FRACTION"
            )
        return self._by_fractions(everything)

    def _whole(self, name: str, pool: Sequence[int]) -> SplitMembers:
        return SplitMembers(name, pool, 0, len(pool), self._key(pool))

    def _key(self, pool: Sequence[int]) -> str:
        return "" if pool == range(self.num_examples) else pool_key(pool)

    # --- the splits that there are ---

    def _existing(self, own: Sequence[OwnSplit]) -> dict[str, Sequence[int]]:
        """Return the pool of each split that the source has, or that its feature names."""
        if self.rule.feature:
            if own:
                self.notes.append(
                    f"splits: '{self.rule.feature}' decides, not the source's own "
                    f"{_listing(split.name for split in own)}"
                )
            return self._by_feature()
        pools: dict[str, Sequence[int]] = {}
        first = 0
        for split in own:
            name, members = standard_split_name(split.name), range(first, first + split.examples)
            first += split.examples
            if members:
                pools[name] = _joined([pools[name], members]) if name in pools else members
        assert first == (self.num_examples if own else 0), (first, self.num_examples)
        return {name: pools[name] for name in sorted(pools, key=_usual_rank)}

    def _by_feature(self) -> dict[str, Sequence[int]]:
        name = self.rule.feature
        values = self.values[name]
        self._refuse_missing(name, "every record must name its split")
        if len(values.values) > MAX_SPLITS:
            raise UserError(
                f"--split_feature={name}: the feature has {len(values.values):,} different "
                f"values, more than {MAX_SPLITS} splits; --split_by keeps equal values together"
            )
        if not values.values:
            raise UserError(f"--split_feature={name}: every record is broken")
        split_names = [_split_of_value(name, value) for value in values.values]
        pools: dict[str, array[int]] = {name: array("q") for name in _in_order(split_names)}
        of_code = [pools[split] for split in split_names]
        first = next(iter(pools.values()))
        for example, code in enumerate(values.codes):
            (first if code == BROKEN else of_code[code]).append(example)
        return dict(pools)

    def _refuse_missing(self, name: str, rule: str) -> None:
        codes = self.values[name].codes
        missing = sum(1 for code in codes if code == MISSING)
        if missing:
            first = next(index for index, code in enumerate(codes) if code == MISSING)
            raise UserError(
                f"feature '{name}' has no value in {plural(missing, 'record')}, the first being "
                f"number {first}: {rule}; fill it in, or leave these records out of the source"
            )

    # --- fractions ---

    def _by_fractions(self, pool: Sequence[int]) -> tuple[SplitMembers, ...]:
        splits = self.rule.dealt
        if self.rule.by:
            return self._by_groups(pool, splits)
        if self.rule.stratify:
            return self._by_strata(pool, splits)
        counts = split_counts(len(pool), splits)
        key = self._key(pool)
        firsts = [0, *accumulate(counts)]
        return tuple(
            SplitMembers(split.name, pool, first, count, key)
            for split, first, count in zip(splits, firsts, counts, strict=False)
        )

    def _by_groups(
        self, pool: Sequence[int], splits: Sequence[SplitFraction]
    ) -> tuple[SplitMembers, ...]:
        name = self.rule.by
        self._refuse_missing(name, "every record must belong to a group")
        codes = self.values[name].codes
        sizes = _sizes(codes, pool)
        groups = [code for code in sorted(sizes) if code != BROKEN]
        if len(groups) < len(splits):
            raise UserError(
                f"--split_by={name}: {plural(len(groups), 'different value')} cannot fill "
                f"{len(splits)} splits: name fewer splits, or another feature"
            )
        chosen = group_splits([sizes[group] for group in groups], splits, seed=self.seed)
        split_of = dict(zip(groups, chosen, strict=True)) | {BROKEN: 0}
        pools = [array("q") for _ in splits]
        for example in pool:
            pools[split_of[codes[example]]].append(example)
        shares = ", ".join(
            f"{split.name} {100 * len(part) / len(pool):.1f} % (asked for "
            f"{100 * (split.fraction or 0):g} %)"
            for split, part in zip(splits, pools, strict=True)
        )
        self.notes.append(
            f"splits: each of {len(groups):,} values of '{name}' in one split: {shares}"
        )
        return tuple(self._whole(s.name, part) for s, part in zip(splits, pools, strict=True))

    def _by_strata(
        self, pool: Sequence[int], splits: Sequence[SplitFraction]
    ) -> tuple[SplitMembers, ...]:
        name = self.rule.stratify
        codes = self.values[name].codes
        sizes = _sizes(codes, pool)
        if len(sizes) > max(len(pool) // 2, 1):
            raise UserError(
                f"--stratify={name}: {len(sizes):,} different values among "
                f"{plural(len(pool), 'example')} are no classes: name a feature with few values"
            )
        strata = sorted(sizes)
        counts = stratum_counts([sizes[stratum] for stratum in strata], splits)
        bounds = {s: list(accumulate(row)) for s, row in zip(strata, counts, strict=True)}
        taken = dict.fromkeys(strata, 0)
        pools = [array("q") for _ in splits]
        for example in map(pool.__getitem__, Permutation(len(pool), self.seed)):
            stratum = codes[example]
            pools[bisect_right(bounds[stratum], taken[stratum])].append(example)
            taken[stratum] += 1
        self._note_strata(name, splits, strata, counts)
        return tuple(self._whole(s.name, part) for s, part in zip(splits, pools, strict=True))

    def _note_strata(
        self,
        name: str,
        splits: Sequence[SplitFraction],
        strata: Sequence[int],
        counts: Sequence[Sequence[int]],
    ) -> None:
        self.notes.append(
            f"splits: every value of '{name}' ({len(strata):,}) in equal shares in each split"
        )
        for index, split in enumerate(splits):
            without = [s for s, row in zip(strata, counts, strict=True) if not row[index]]
            if without:
                shown = (self._show_value(name, code) for code in without)
                self.notes.append(
                    f"split '{split.name}' has no record of '{name}' {_listing(shown)}: too few"
                )

    def _show_value(self, name: str, code: int) -> str:
        if code in (MISSING, BROKEN):
            return "(no value)"
        value: Any = self.values[name].values[code]
        known = self.names.get(name, ())
        if isinstance(value, int) and 0 <= value < len(known):
            return repr(known[value])
        return repr(value)


def pool_key(pool: Sequence[int]) -> str:
    """Return a text that identifies the contents of a pool."""
    if isinstance(pool, range):
        return f"{pool.start}:{pool.stop}"
    assert isinstance(pool, array)
    return hashlib.blake2b(memoryview(pool).cast("B"), digest_size=8).hexdigest()


def _joined(pools: Iterable[Sequence[int]]) -> Sequence[int]:
    """Return the examples of all pools, ascending: a range if they are neighbours."""
    parts = list(pools)
    if all(isinstance(part, range) for part in parts):
        parts.sort(key=lambda part: part[0])
        if all(after[0] == before[-1] + 1 for before, after in pairwise(parts)):
            return range(parts[0][0], parts[-1][-1] + 1)
    if len(parts) == 1:
        return parts[0]
    return array("q", sorted(example for part in parts for example in part))


def _sizes(codes: Sequence[int], pool: Sequence[int]) -> dict[int, int]:
    """Return the number of examples of `pool` with each code."""
    sizes: dict[int, int] = {}
    for example in pool:
        code = int(codes[example])
        sizes[code] = sizes.get(code, 0) + 1
    return sizes


def _split_of_value(feature: str, value: Any) -> str:
    """Return the name of the split that a value of the split feature stands for.

    Raises:
      UserError: the value is no name and no whole number.
    """
    if isinstance(value, str):
        try:
            return check_split_name(standard_split_name(value.strip()))
        except UserError as error:
            raise UserError(f"--split_feature={feature}: {error}") from None
    if isinstance(value, (bool, int)) or (isinstance(value, float) and value.is_integer()):
        word = "".join(char if char.isascii() and char.isalnum() else "_" for char in feature)
        sign = "minus_" if value < 0 else ""
        return check_split_name(
            f"{word if word[:1].isalpha() else 'fold'}_{sign}{abs(int(value))}"
        )
    raise UserError(
        f"--split_feature={feature}: the value {value!r} names no split: it must be a name as "
        "'train', or a whole number"
    )


def _in_order(names: Iterable[str]) -> list[str]:
    """Return the distinct names: the usual ones first, then by length and alphabet."""
    return sorted(set(names), key=lambda name: (_usual_rank(name), len(name), name))


def _usual_rank(name: str) -> int:
    return (*_USUAL_ORDER, name).index(name)


def _listing(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
