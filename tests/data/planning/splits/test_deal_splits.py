"""Dealing examples to splits: own, by a feature, by groups, in strata, by fractions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.planning.splits.deal_splits import DealtSplits, deal_splits
from tenfold.data.planning.splits.own_splits import BROKEN_RECORD, OwnSplit, code_values
from tenfold.data.planning.splits.split_fractions import parse_splits
from tenfold.data.planning.splits.split_names import standard_split_name
from tenfold.data.planning.splits.split_rule import SplitRule
from tenfold.data.planning.write_plan import SizeEstimate, plan_write

OWN = (OwnSplit("train", 50), OwnSplit("val", 10), OwnSplit("test", 20), OwnSplit("empty", 0))


def deal(text: str, values: Sequence[Any] = (), *, own: Any = (), **rule: str) -> DealtSplits:
    """Deal 80 examples, or one for each of `values`, the values of feature ``f``."""
    count = len(values) or 80
    coded = {"f": code_values(values)} if values else {}
    names = {"f": ("zero", "one")}
    rules = SplitRule(parse_splits(text), **rule)
    return deal_splits(count, rules, own=own, values=coded, seed=3, names=names)


def members(dealt: DealtSplits) -> dict[str, list[int]]:
    """Return the sorted example numbers that the shards of each split get."""
    policy = LayoutPolicy(num_workers=1, shards_per_worker=3, min_shard_bytes=1)
    plan = plan_write(dealt, policy, estimates=[SizeEstimate(100.0)] * len(dealt.splits))
    found: dict[str, list[int]] = {split.name: [] for split in plan.splits}
    for task in plan.tasks:
        sources = list(plan.sources_of(task))
        assert len(sources) == task.records
        assert sources == [(example, 0) for example in plan.examples_of(task).tolist()]
        found[plan.splits[task.split].name] += [example for example, _ in sources]
    return {name: sorted(examples) for name, examples in found.items()}


@pytest.mark.parametrize(
    ("given", "standard"),
    [("val", "validation"), ("VALID", "validation"), ("dev", "validation"), ("Train", "train"),
     ("training", "train"), ("testing", "test"), ("holdout", "holdout"), ("Fold1", "Fold1")],
)  # fmt: skip
def test_usual_names_are_one(given: str, standard: str) -> None:
    assert standard_split_name(given) == standard


def test_own_splits_are_kept_by_default() -> None:
    dealt = deal("", own=OWN)
    assert members(dealt) == {
        "train": list(range(50)), "validation": list(range(50, 60)), "test": list(range(60, 80))
    }  # fmt: skip
    assert dealt.notes == ("splits: train, validation, test, as the source has them",)


def test_everything_is_train_without_own_splits() -> None:
    dealt = deal("")
    assert members(dealt) == {"train": list(range(80))}
    assert dealt.notes == ()
    assert dealt.splits == deal("train").splits == deal("train:1").splits


def test_named_own_split_is_kept_and_the_rest_dealt() -> None:
    dealt = deal("train:0.75,validation:0.25,test", own=OWN)
    found = members(dealt)
    assert list(found) == ["train", "validation", "test"]
    assert found["test"] == list(range(60, 80))
    assert (len(found["train"]), len(found["validation"])) == (45, 15)
    assert sorted(found["train"] + found["validation"]) == list(range(60))
    assert dealt.notes == (
        "splits: test, as the source has them",
        "splits: train (50 examples), validation (10 examples) of the source dealt anew by the "
        "fractions of --split",
    )


def test_split_that_is_not_named_is_left_out_and_said() -> None:
    dealt = deal("train,test", own=OWN)
    assert members(dealt) == {"train": list(range(50)), "test": list(range(60, 80))}
    assert dealt.notes[-1] == (
        "left out, because --split does not name them: validation (10 examples)"
    )
    # The rest is no range: train and test around the validation split.
    rest = members(deal("a:0.5,b:0.5,val", own=OWN))
    assert sorted(rest["a"] + rest["b"]) == [*range(50), *range(60, 80)]


def test_feature_names_the_splits() -> None:
    values = ["val", "train", "dev", "test", "Train"] * 4
    found = members(deal("", [*values, BROKEN_RECORD], feature="f"))
    assert list(found) == ["train", "validation", "test"]
    # A broken record goes to the first split, whose writer fails on it or leaves it out.
    assert found["train"] == sorted([*range(1, 20, 5), *range(4, 20, 5), 20])
    assert found["validation"] == sorted([*range(0, 20, 5), *range(2, 20, 5)])
    folds = members(deal("", [10, 2, 2, 0] * 5, feature="f"))
    assert {name: len(found) for name, found in folds.items()} == {"f_0": 5, "f_2": 10, "f_10": 5}


def test_groups_stay_whole() -> None:
    values = [f"p{number // 3}" for number in range(300)]
    dealt = deal("train:0.8,validation:0.1,test:0.1", values, by="f")
    found = members(dealt)
    assert [len(found[name]) for name in found] == [240, 30, 30]
    groups = [{values[example] for example in examples} for examples in found.values()]
    assert sum(map(len, groups)) == len(set(values))
    assert dealt.notes == (
        "splits: each of 100 values of 'f' in one split: train 80.0 % (asked for 80 %), "
        "validation 10.0 % (asked for 10 %), test 10.0 % (asked for 10 %)",
    )


def test_strata_get_equal_shares() -> None:
    values = [0] * 90 + [1] * 10 + [2]
    dealt = deal("train:0.8,validation:0.2", values, stratify="f")
    found = {name: Counter(values[i] for i in found) for name, found in members(dealt).items()}
    assert found == {"train": {0: 72, 1: 8, 2: 1}, "validation": {0: 18, 1: 2}}
    assert dealt.notes[1] == "split 'validation' has no record of 'f' 2: too few"


@given(
    st.lists(st.sampled_from("abcde"), min_size=40, max_size=120),
    st.sampled_from(["by", "stratify", "feature", ""]),
)
def test_every_example_is_dealt_once(values: list[str], rule: str) -> None:
    text = "" if rule == "feature" else "train:0.5,validation:0.25,test:0.25"
    try:
        found = members(deal(text, values, **({rule: "f"} if rule else {})))
    except UserError:
        # Too few groups, or strata of one example each.
        assert rule in ("by", "stratify")
        assert len(set(values)) < 3 or rule == "stratify"
        return
    assert sorted(i for examples in found.values() for i in examples) == list(range(len(values)))


@pytest.mark.parametrize(
    ("text", "values", "rule", "words"),
    [
        ("a:1,b", [], {}, "split 'b' has no fraction, and the source has no splits"),
        ("", [], {"by": "f"}, "--split_by=f needs fractions, as --split=train:0.8"),
        ("a:0.5,b:0.5", [1, 1, 1], {"by": "f"}, "1 different value cannot fill 2 splits"),
        ("a:0.5,b:0.5", [1, None], {"by": "f"}, "no value in 1 record, the first being number 1"),
        ("a:0.5,b:0.5", [1, 2, 3, 4], {"stratify": "f"}, "4 different values among 4 examples"),
        ("a:0.5,b:0.5", [1], {"stratify": "f", "by": "f"}, "exclude each other"),
        ("", [0.5, 1], {"feature": "f"}, "0.5 names no split"),
        ("", ["a b"], {"feature": "f"}, "split name 'a b' must be a letter"),
        ("", list(range(101)), {"feature": "f"}, "101 different values, more than 100"),
        ("", ["a", None], {"feature": "f"}, "every record must name its split"),
        ("c,a", ["a", "b"], {"feature": "f"}, "split 'c' has no fraction, and the source has no"),
        ("a,b,c:1", ["a", "b"], {"feature": "f"}, "nothing is left to divide"),
    ],
)  # fmt: skip
def test_rule_that_does_not_fit_is_refused(
    text: str, values: list[Any], rule: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        deal(text, values, **rule)
