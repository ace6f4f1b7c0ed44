"""A manifest with a changed field is refused in one line, or the field is free."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.format import manifest_fields
from tenfold.data.format.manifest import MANIFEST_NAME, manifest_from_json, manifest_to_json
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.write_shards import WriteOptions, write_shards

# Fields for which several values fit the rest of a manifest. `verify` compares crc32c,
# label_counts, kinds and shapes with the shards, and quarantined with quarantine.jsonl.
FREE = {
    ("label_names", "*"), ("source_fingerprint",), ("transform_key",), ("layout_key",),
    ("quarantined",), ("features", "*", "name"), ("features", "*", "kind"),
    ("features", "*", "shape"), ("features", "*", "shape", "*"), ("splits", "*", "label_counts"),
    ("splits", "*", "shards", "*", "crc32c"),
    # The order of features and splits, and data sets without a feature, a split or class names.
    ("features",), ("features", "*"), ("splits",), ("splits", "*"), ("label_names",),
    # The numbers of workers that the lanes were planned for; any number may read them.
    ("worker_counts",), ("worker_counts", "*"),
}  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 1.0, 1.5, float("inf"), float("nan"), 10**30, -(10**400),
    "", "x", "\ud800", "a\nb", "../a", "0" * 8, "F" * 16, "x" * 5000, [], [1], [[]], {}, {"x": 1},
)  # fmt: skip

Path_ = tuple[str | int, ...]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("out")
    records = [{"x": [float(n), 1.0], "label": n % 3} for n in range(40)]
    options = WriteOptions(
        policy=LayoutPolicy(num_workers=2, min_shard_bytes=500),
        splits={"train": 0.7, "test": 0.3},
        processes=1,
    )
    write_shards(records, out, options=options)
    document = json.loads((out / MANIFEST_NAME).read_text())
    # Manifests of before statistics; tests/data/integrity/test_compare_sets.py damages these.
    for split in document["splits"]:
        assert split.pop("statistics")["records"]
    return json.dumps(document, indent=1)


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Every place in a document."""
    yield path
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        yield from places(child, (*path, key))


def changed(document: Any, path: Path_, value: Any) -> Any:
    """Return the document with another value at `path`."""
    if not path:
        return value
    document = copy.deepcopy(document)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return document


def without(document: Any, path: Path_) -> Any:
    """Return the document without the field or entry at `path`."""
    document = copy.deepcopy(document)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    del parent[path[-1]]
    return document


def check(original: Any, mutated: Any, path: Path_) -> None:
    """Expect a refusal in one line, or a change of a free field that survives a round trip."""
    encoded = json.dumps(mutated)
    try:
        manifest = manifest_from_json(encoded)
    except UserError as error:
        message = str(error)
    else:
        message = ""
    assert message.isprintable()
    assert len(message) < 700
    if message:
        return
    if json.dumps(original) != encoded:
        pattern = tuple("*" if isinstance(key, int) else key for key in path)
        assert pattern in FREE, (path, encoded[:300])
        assert json.loads(manifest_to_json(manifest)) == mutated


def test_every_changed_field_is_refused_or_free(text: str) -> None:
    document = json.loads(text)
    for path in places(document):
        for value in VALUES:
            check(document, changed(document, path, value), path)
        if path:
            check(document, without(document, path), path)


def test_values_near_the_right_ones_are_refused(text: str) -> None:
    document = json.loads(text)
    for path in places(document):
        value = document
        for key in path:
            value = value[key]
        if isinstance(value, int):
            near: list[Any] = [value + 1, value - 1, -value, float(value), str(value), value * 2]
        elif isinstance(value, str):
            near = [value + "0", value[:-1], value.upper(), " " + value, "0x" + value[2:]]
            near.append(value[::-1])
        elif isinstance(value, list):
            near = [value + value[-1:], value[1:], value[::-1], {"0": value}]
        else:
            near = [value | {"unknown": 1}]
        for other in near:
            check(document, changed(document, path, other), path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_random_json_in_a_field_is_refused(text: str, data: st.DataObject) -> None:
    document = json.loads(text)
    path = data.draw(st.sampled_from(list(places(document))))
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    value = data.draw(
        st.recursive(scalars, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=5)
    )
    check(document, changed(document, path, value), path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("quarantined",), float("inf")),
        (("quarantined",), -1),
        (("worker_counts",), [0]),
        (("worker_counts",), [3]),
        (("worker_counts",), []),
        (("num_lanes",), 1),
        (("label_names",), "ab"),
        (("splits", 0, "records"), 12),
        (("splits", 0, "bytes"), 2000),
        (("splits", 0, "fingerprint"), "0" * 16),
        (("splits", 0, "label_counts"), [1, 1, 1]),
        (("splits", 0, "label_counts"), [-1, 29, 0]),
        (("splits", 0, "name"), "test"),
        (("splits", 0, "shards", 0, "crc32c"), "0x00000a"),
        (("splits", 0, "shards", 0, "bytes"), 10**30),
        (("features", 1, "shape"), [-2]),
        (("features", 1, "kind"), "image"),
        (("features", 1, "name"), "image"),
        (("features", 0, "name"), "label"),
        (("features", 1, "name"), ""),
    ],
)
def test_impossible_value_is_refused(text: str, path: Path_, value: Any) -> None:
    with pytest.raises(UserError, match=r"^manifest\.json"):
        manifest_from_json(json.dumps(changed(json.loads(text), path, value)))


@pytest.mark.parametrize(
    "damaged",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "",
        "null",
        "[]",
        '{"format": 1, "format": 2}',
        '{"format": "tenfold-shards", "version": 2}',
        '{"format": "a\\u001b[31m\\n"}',
        "9" * 10_000,
    ],
)
def test_text_without_manifest_is_refused_in_one_line(damaged: str) -> None:
    with pytest.raises(UserError) as refused:
        manifest_from_json(damaged)
    assert str(refused.value).isprintable()


def test_nested_field_is_refused(text: str) -> None:
    nested = json.dumps("[" * 900 + "]" * 900)[1:-1]
    with pytest.raises(UserError, match="quarantined is"):
        manifest_from_json(text.replace('"quarantined": 0', f'"quarantined": {nested}'))


def test_key_given_twice_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="a key occurs twice"):
        manifest_from_json(text.replace('"num_lanes"', '"num_lanes": 2, "num_lanes"'))


def test_oversized_manifest_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / MANIFEST_NAME, "wb") as file:
        file.truncate(manifest_fields.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(UserError, match="it is not a manifest"):
        read_manifest(str(tmp_path))
    monkeypatch.setattr("tenfold.data.format.manifest.MAX_MANIFEST_BYTES", 100)
    with pytest.raises(UserError, match="larger than 100 bytes"):
        manifest_from_json(text)


def test_lost_records_may_be_counted_in_labels(text: str) -> None:
    document = json.loads(text)
    document["splits"][0]["label_counts"][0] += 2
    assert manifest_from_json(json.dumps(document), lost_records=2)
    with pytest.raises(UserError, match="label_counts"):
        manifest_from_json(json.dumps(document), lost_records=1)
