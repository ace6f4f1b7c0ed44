"""Statistics of features: equal for rows and columns, and for any number of shards."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data.format.columns import Columns, bytes_column, list_column, number_column
from tenfold.data.format.manifest import Feature
from tenfold.data.format.statistics.feature_statistics import (
    FeatureStatistics,
    SplitStatistics,
    bins,
    cumulative,
    shift,
)
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.sources.features import encode_features
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.statistics.shard_statistics import (
    ShardStatistics,
    merge_statistics,
    shard_statistics_from_json,
    shard_statistics_to_json,
)
from tenfold.data.writing.write_shards import WriteOptions, write_shards

FLOATS = st.floats(width=32) | st.sampled_from([0.0, 1.5, math.nan, math.inf])
RECORDS = st.lists(
    st.tuples(
        FLOATS,
        st.integers(-(2**63), 2**63 - 1),
        st.text(max_size=70),
        st.lists(st.integers(-5, 5), max_size=3),
    ),
    max_size=40,
)
SCHEMA = tuple(Feature(name, "bytes") for name in ("f", "i", "l", "t"))


def of_rows(records: list[Any], cuts: list[int]) -> SplitStatistics:
    """Return the statistics of rows, dealt to shards at `cuts`, each through its JSON form."""
    shards = []
    for begin, end in zip([0, *cuts], [*cuts, len(records)], strict=True):
        shard = ShardStatistics(len(records), len(cuts) + 1)
        for f, i, t, values in records[begin:end]:
            encoded = encode_features({"f": f, "i": i, "t": t, "l": np.array(values, np.int64)})
            shard.add_record(encoded.payload, encoded.schema, 0)
        shard.flush()
        document = json.loads(json.dumps(shard_statistics_to_json(shard)))
        shards.append(shard_statistics_from_json(document))
    return merge_statistics(shards, SCHEMA)


def of_columns(records: list[Any]) -> SplitStatistics:
    floats, whole, texts, lists = zip(*records, strict=True)
    shard = ShardStatistics(len(records))
    columns = {
        "f": number_column(np.array(floats, np.float32)),
        "i": number_column(np.array(whole, np.int64)),
        "t": bytes_column(texts),
        "l": list_column(
            np.array([v for values in lists for v in values], np.int64),
            np.array([len(values) for values in lists], np.int64),
        ),
    }
    shard.add_columns(Columns(len(records), columns))
    return merge_statistics([shard], SCHEMA)


def assert_close(first: FeatureStatistics, second: FeatureStatistics) -> None:
    for name, value in vars(first).items():
        other = vars(second)[name]
        if name in ("mean", "std", "length", "quantiles") and value is not None:
            scale = max(map(abs, first.quantiles), default=1) or 1
            assert np.allclose(value, other, rtol=1e-6, atol=1e-6 * scale), name
        else:
            assert value == other, name


@settings(max_examples=60, deadline=None)
@given(RECORDS.filter(bool), st.data())
def test_statistics_agree_for_rows_columns_and_shards(records: list[Any], data: Any) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(records)), max_size=3)))
    whole, parts, columns = of_rows(records, []), of_rows(records, cuts), of_columns(records)
    assert whole.records == parts.records == columns.records == len(records)
    for name in ("f", "i", "t"):
        assert_close(whole.feature(name), parts.feature(name))  # type: ignore[arg-type]
        assert_close(whole.feature(name), columns.feature(name))  # type: ignore[arg-type]
    finite = [record[0] for record in records if math.isfinite(record[0])]
    found = whole.feature("f")
    assert found is not None
    assert found.not_finite == len(records) - len(finite)
    if finite:
        assert (found.minimum, found.maximum) == (min(finite), max(finite))
        assert found.mean == pytest.approx(np.mean(np.array(finite, np.float64)), rel=1e-6)
        assert found.distinct == len(set(finite))


@pytest.mark.parametrize("count", [100, 256, 257, 5_000, 100_000])
def test_number_of_different_values_is_exact_or_near(count: int) -> None:
    shard = ShardStatistics()
    for begin in range(0, 3 * count, 4096):
        values = np.arange(begin, min(begin + 4096, 3 * count)) % count
        texts = bytes_column([str(value) for value in values.tolist()])
        shard.add_columns(Columns(len(values), {"n": number_column(values), "t": texts}))
    for name in ("n", "t"):
        found = shard.features[name].result(name)
        assert found.distinct_exact == (count <= 256)
        assert found.distinct == (count if count < 257 else pytest.approx(count, rel=0.25))
        assert bool(found.top) == (count <= 256)


def test_missing_and_unusable_values_are_counted() -> None:
    present = np.array([True, False, True, True])
    column = number_column(np.array([1.0, 0, 3, 9]), present)
    shard = ShardStatistics()
    shard.add_columns(Columns(4, {"a": column, "b": number_column(np.arange(4))}), [3])
    late = encode_features({"b": 7, "c": "x"})
    shard.add_record(late.payload, late.schema, 0)
    shard.flush()
    assert shard.records == 4
    results = {name: sums.result(name) for name, sums in shard.features.items()}
    assert {name: found.missing for name, found in results.items()} == {"a": 2, "b": 0, "c": 3}
    assert (results["a"].minimum, results["a"].maximum) == (1, 3)
    assert results["b"].top == (("0", 1), ("1", 1), ("2", 1), ("7", 1))


def test_large_splits_are_sampled_by_fingerprint() -> None:
    shard = ShardStatistics(200_000)
    record = encode_features({"a": 1})
    for fingerprint in range(1_000):
        shard.add_record(record.payload, record.schema, fingerprint)
    shard.flush()
    assert shard.records == 100


def test_manifest_keeps_the_statistics(tmp_path: Path, make_image: Any) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"image": make_image(seed=n), "label": n % 3, "v": rng.normal(size=4), "t": "ab" * (n % 5)}
        for n in range(60)
    ]
    policy = LayoutPolicy(num_workers=2)
    splits = {"train": 0.8, "validation": 0.2}
    options = WriteOptions(policy=policy, splits=splits)
    written = write_shards(rows, tmp_path / "a", options=options).manifest
    again = WriteOptions(policy=policy, splits=splits, processes=1)
    write_shards(rows, tmp_path / "b", options=again)
    assert read_manifest(str(tmp_path / "a")) == written == read_manifest(str(tmp_path / "b"))
    assert written is not None
    found = written.split("train").statistics
    assert found is not None
    assert found.records == 48
    image, label, text, vector = found.features
    assert (image.height, image.width) == ((8, 8), (8, 8))
    assert image.length is not None
    assert image.length[0] <= image.length[1] <= image.length[2]
    assert (label.minimum, label.maximum, label.distinct) == (0, 2, 3)
    assert text.length == (0, pytest.approx(4, abs=2), 8)
    assert text.distinct == 5
    assert vector.mean == pytest.approx(0, abs=0.3)
    assert vector.std == pytest.approx(1, abs=0.3)
    assert vector.distinct is None


def test_distributions_are_compared_by_quantiles_and_shares() -> None:
    uniform = tuple(n / 2 for n in range(21))
    assert [cumulative(uniform, value) for value in (-1, 0, 2.5, 10, 11)] == [0, 0, 0.25, 1, 1]
    assert bins(uniform, 5) == pytest.approx([0.2] * 5)
    assert bins((3.0,) * 21, 5) == [1.0]
    first = FeatureStatistics("a", quantiles=uniform)
    later = FeatureStatistics("a", quantiles=tuple(n + 5 for n in uniform))
    assert shift(first, first) == 0
    assert shift(first, later) == pytest.approx(0.5)
    cats = FeatureStatistics("a", distinct=2, top=(("cat", 6), ("dog", 2)))
    dogs = FeatureStatistics("a", distinct=2, top=(("dog", 3), ("emu", 1)))
    assert shift(cats, dogs) == pytest.approx(0.75)
    assert shift(FeatureStatistics("a"), first) is None
