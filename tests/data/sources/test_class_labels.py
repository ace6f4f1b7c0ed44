"""The mapping of labels to class indices 0 … n-1."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.sources.class_labels import DistinctLabels, LabelMap, map_labels, parse_classes


@pytest.mark.parametrize(
    ("labels", "records", "expected", "note"),
    [
        # Text, sorted; an empty text is no class.
        (["dog", "cat", ""], 9, {"cat": 0, "dog": 1}, ""),
        # Class indices stay as they are.
        ([0, 1, 2], 9, {}, ""),
        ([2, 0, 1], 3, {}, ""),
        # Other whole numbers become 0 … n-1.
        ([5, 7, 100], 3, {5: 0, 7: 1, 100: 2}, "5, 7, 100 are stored as 0, 1, 2"),
        ([1, 2, 3], 9, {1: 0, 2: 1, 3: 2}, "1, 2, 3 are stored as 0, 1, 2"),
        ([-1, 1], 9, {-1: 0, 1: 1}, "-1, 1 are stored as 0, 1"),
        ([7], 9, {7: 0}, "1 class 7 are stored"),
        (range(1, 101), 1000, {n: n - 1 for n in range(1, 101)}, "1, 2, 3, … 100"),
        # Many that hardly repeat are ages, amounts or ids.
        (range(1, 101), 999, {}, "100 different whole numbers (1, 2, 3, … 100) are no classes"),
        (range(5, 1500), 10**6, {}, "1,495 different whole numbers"),
        (range(10, 30_000), 10**6, {}, "more than 10,000 different"),
        ([], 3, {}, ""),
    ],
)
def test_labels_map_to_class_indices(
    labels: Any, records: int, expected: dict[Any, int], note: str
) -> None:
    found = map_labels(labels, records=records)
    assert dict(found.indices) == expected
    assert found.names == tuple(str(label) for label in expected)
    assert (note in found.note) if note else not found.note
    assert all(found.stored(label) == index for label, index in expected.items())


@given(st.sets(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_few_whole_numbers_keep_their_order(labels: set[int]) -> None:
    found = map_labels(labels, records=len(labels))
    assert [found.stored(label) for label in sorted(labels)] == list(range(len(labels)))
    assert found.num_classes == len(labels)


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (["cat"], ("dog", "cat"), LabelMap({"cat": 1}, ("dog", "cat"), 2)),
        ([5, 7], ("7", "6", "5"), LabelMap({5: 2, 7: 0}, ("7", "6", "5"), 3)),
        # Class indices get names; the number of classes keeps gaps.
        ([0, 2], ("a", "b", "c"), LabelMap({}, ("a", "b", "c"), 3)),
        ([0, 2], ("0", "1", "2"), LabelMap({}, ("0", "1", "2"), 3)),
        ([5, 700], (), LabelMap()),
        (["x"], (), LabelMap()),
    ],
)
def test_given_classes_decide_the_indices(labels: Any, classes: Any, expected: LabelMap) -> None:
    assert map_labels(labels, records=9, classes=classes) == expected


@pytest.mark.parametrize(
    ("labels", "classes", "words"),
    [
        (["cat", "dgo"], ("cat", "dog"), "label 'dgo' .*did you mean 'dog'"),
        ([3], ("a", "b", "c"), "label '3' .*add it to the 3 classes"),
        (["a", 3], None, "some labels are text, as 'a', and some are numbers, as 3"),
    ],
)
def test_unmappable_labels_are_refused(labels: Any, classes: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        map_labels(labels, records=9, classes=classes)


def test_distinct_labels_accept_all_kinds_of_scalars() -> None:
    labels = DistinctLabels()
    for value in (5, np.int64(5), np.array([7]), [100], True, 2.5, [1, 2]):
        labels.add(value)
    assert labels.counts == {5: 2, 7: 1, 100: 1, 1: 1}
    assert labels.records == 7
    texts = DistinctLabels()
    for text in ("a", b"a", np.array("b"), np.bytes_(b"c")):
        texts.add(text)
    assert texts.counts == {"a": 2, "b": 1, "c": 1}
    found = texts.mapping(None)
    assert (found.stored(b"b"), found.stored(np.str_("c"))) == (1, 2)
    with pytest.raises(ValueError, match="its label is empty"):
        found.stored("")
    with pytest.raises(ValueError, match="it has no class: 'new'"):
        found.stored("new")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("none", ()),
        ("3", ("0", "1", "2")),
        ("dog,cat", ("dog", "cat")),
        ("names.txt", ("dog", "é t", "cat")),
    ],
)
def test_classes_flag_is_read(text: str, expected: Any) -> None:
    files = {"names.txt": "\ufeffdog\r\né t \ncat\n\n".encode()}
    assert parse_classes(text, files.get) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gone.txt", "there is no such file"),
        ("0", "is 1 to 10,000"),
        ("a,a", "'a' occurs twice"),
        ("a,,b", "line 2 is empty"),
        ("empty", "line 1 is empty"),
        ("binary", "no text in UTF-8"),
        ("control", "cannot be shown"),
    ],
)
def test_unusable_classes_flag_is_refused(text: str, words: str) -> None:
    files = {"empty": b"\n", "binary": b"\xff\xfe", "control": b"a\x07\n"}
    with pytest.raises(UserError, match=words):
        parse_classes(text, files.get)
