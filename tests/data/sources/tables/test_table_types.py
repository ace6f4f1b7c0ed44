"""Tables as people have them: odd headers, values and encodings, each read or refused."""

import gzip
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather, parquet

from tenfold.data.errors import UserError
from tenfold.data.sources.base import Source, SourceOptions, UnusableRecord
from tenfold.data.sources.open_source import open_source
from tenfold.data.sources.tables.columns.given_columns import parse_columns

Open = Callable[..., Source]


@pytest.fixture
def open_text(tmp_path: Path) -> Open:
    """A function that writes a file and opens it as a source, with options by name."""

    def call(text: str | bytes, name: str = "t.csv", **options: Any) -> Source:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return open_path(path, tmp_path, **options)

    return call


def open_path(path: Path, tmp_path: Path, **options: Any) -> Source:
    scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    return open_source(str(path), scratch, SourceOptions(**options))


def open_arrow(tmp_path: Path, columns: dict[str, Any], **options: Any) -> Source:
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    return open_path(tmp_path / "t.parquet", tmp_path, **options)


def rows(source: Source) -> list[dict[str, Any]]:
    """All records, arrays as lists; the reason in place of a broken one."""
    found = []
    for index in range(source.stats.num_examples):
        try:
            features = source.features(index)
        except UnusableRecord as error:
            found.append({"broken": str(error)})
            continue
        found.append({n: v.tolist() if hasattr(v, "tolist") else v for n, v in features.items()})
    return found


def numbers(cells: dict[int, str], count: int = 2000) -> str:
    """A table of a column v of numbers with other `cells` in some rows."""
    lines = [f"{cells.get(row, row)},{'ab'[row % 2]}" for row in range(count)]
    return "\n".join(["v,label", *lines]) + "\n"


# --- missing values ---


@pytest.mark.parametrize("word", ["n/a", "NA", "N/A", "null", "", "NaN", " "])
def test_missing_value_fails_with_lines_and_ways_out(word: str, open_text: Open) -> None:
    with pytest.raises(UserError) as error:
        open_text(numbers({17: word, 1900: word}))
    assert "column 'v' has 2 missing values of 2,000 (lines 19, 1,902)" in str(error.value)
    assert "--missing=drop" in str(error.value)


def test_each_missing_policy_stores_what_it_says(open_text: Open) -> None:
    def values(policy: str) -> list[Any]:
        return [row.get("v") for row in rows(open_text(numbers({1: "NA"}, 3), missing=policy))]

    assert values("drop") == [0, 2]
    assert values("zero") == [0, 0, 2]
    assert values("keep") == [0, None, 2]
    assert values("nan") == pytest.approx([0, float("nan"), 2], nan_ok=True)
    source = open_text(numbers({1: "NA"}, 3), missing="nan")
    assert source.notes == ("column 'v': 1 missing value stored as NaN (--missing=nan)",)
    dropped = open_text(numbers({1: "NA"}, 3), missing="drop")
    assert dropped.name(1).endswith("t.csv: row 2")
    kept = open_text(numbers({1: "NA"}, 3), missing="keep")
    assert kept.optional_features == {"v"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_null_follows_the_policy(suffix: str, tmp_path: Path, open_text: Open) -> None:
    data: dict[str, list[Any]] = {"a": [1, None], "t": ["x", None], "f": [0.5, 1.5]}
    if suffix == "parquet":
        source = lambda **options: open_arrow(tmp_path, data, **options)  # noqa: E731
    else:
        lines = [json.dumps({n: v[i] for n, v in data.items()}) for i in range(2)]
        source = lambda **options: open_text("\n".join(lines), "t.jsonl", **options)  # noqa: E731
    with pytest.raises(UserError, match="column 'a' has 1 missing value of 2"):
        source()
    assert rows(source(missing="zero"))[1] == {"a": 0, "t": b"", "f": 1.5}
    assert rows(source(missing="keep"))[1] == {"f": 1.5}
    assert len(rows(source(missing="drop"))) == 1
    with pytest.raises(UserError, match="text cannot be NaN"):
        source(missing="nan")


def test_empty_label_is_a_broken_record(open_text: Open) -> None:
    source = open_text("v,label\n1,b\n2,\n3,a\n")
    assert rows(source) == [
        {"v": 1, "label": 1}, {"broken": "its label is missing"}, {"v": 3, "label": 0}
    ]  # fmt: skip
    assert source.stats.label_names == ("a", "b")
    columns = source.columns(np.array([2, 1]))  # type: ignore[attr-defined]
    assert columns.unusable == {1: "its label is missing"}
    assert [row["v"] for row in rows(open_text("v,label\n1,b\n2,\n", missing="drop"))] == [1]


def test_column_without_values_is_left_out_and_named(open_text: Open) -> None:
    source = open_text("a,b\n1,\n2,NA\n")
    assert rows(source) == [{"a": 1}, {"a": 2}]
    assert source.notes == ("left out column 'b': all its values are missing",)


# --- types of text ---


def test_few_odd_cells_that_make_text_are_named(open_text: Open) -> None:
    text = numbers({17: "abc", 1999: "12 kg"})
    source = open_text(text)
    (note,) = source.notes
    assert "column 'v' is text, for 2 of its 2,000 cells" in note
    assert "'abc' (lines 19, 2,001)" in note
    assert rows(source)[16]["v"] == b"16"
    given = open_text(text, columns="v:float,*")
    assert rows(given)[17] == {"broken": "column 'v' holds 'abc', no number"}
    assert rows(given)[16] == {"v": 16.0, "label": 0}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["True", "False"], [1, 0]),
        (["TRUE", "false"], [1, 0]),
        (["1", "2.5"], [1.0, 2.5]),
        ([" 1", "2 "], [1, 2]),
        (["1e3", "inf"], [1000.0, float("inf")]),
        (["007", "12"], [b"007", b"12"]),  # codes
        (["0x1f", "12"], [b"0x1f", b"12"]),
        (["1_000", "2"], [b"1_000", b"2"]),
        (["2024-01-31", "2024-02-01"], [b"2024-01-31", b"2024-02-01"]),
        (["-9223372036854775808", "9223372036854775807"], [-(2**63), 2**63 - 1]),
    ],
)
def test_cells_have_the_narrowest_type(
    cells: list[str], expected: list[Any], open_text: Open
) -> None:
    assert [row["v"] for row in rows(open_text("v\n" + "\n".join(cells) + "\n"))] == expected


def test_type_widens_with_the_last_row(open_text: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond the first block of the file count as much as those in it."""
    monkeypatch.setattr("tenfold.data.sources.tables.arrow_batches._BLOCK_BYTES", 9 * 64)
    text = "v,label\n" + "1,a\n" * 1000
    wide = open_text(text + "0.5,b\n")
    assert [wide.features(0)["v"], wide.features(1000)["v"]] == [1.0, 0.5]
    assert wide.stats.label_names == ("a", "b")
    assert open_text(text + "x,b\n").features(0)["v"] == b"1"
    with pytest.raises(UserError, match=r"1 missing value of 1,001 \(line 1,002\)"):
        open_text(text + "NA,b\n")
    kept = open_text(text + "NA,b\n", missing="keep")
    assert [kept.features(index).get("v") for index in (0, 1000)] == [1, None]
    assert open_text(text + "NA,b\n", missing="nan").features(0)["v"] == 1.0
    lines = '{"v": 1}\n' * 1024  # whole blocks
    assert open_text(lines + '{"v": 0.5}\n', "t.jsonl").features(0)["v"] == 1.0
    with pytest.raises(UserError, match="column 'v' holds text from row 1024 on, numbers before"):
        open_text(lines + '{"v": "x"}\n', "t.jsonl")
    with pytest.raises(UserError, match=r"column 'w' has 1,024 missing values .*lines 1, 2, 3, …"):
        open_text(lines + '{"v": 2, "w": 1}\n', "t.jsonl")


def test_whole_number_beyond_int64_is_refused(open_text: Open, tmp_path: Path) -> None:
    text = "v,label\n18446744073709551615,x\n1,y\n"
    with pytest.raises(UserError, match="18446744073709551615 is beyond int64"):
        open_text(text)
    assert rows(open_text(text, columns="v:text,*"))[0]["v"] == b"18446744073709551615"
    assert rows(open_text(text, columns="v:float,*"))[0]["v"] == 2.0**64
    with pytest.raises(UserError, match=r"line 2: 18446744073709551615 is beyond int64"):
        open_text('{"v": 1}\n{"v": 18446744073709551615}\n', "t.jsonl")
    with pytest.raises(UserError, match="beyond int64"):
        open_arrow(tmp_path, {"v": pa.array([2**64 - 1], pa.uint64())})


def test_rounded_whole_numbers_are_counted(open_text: Open) -> None:
    source = open_text("v\n16777217\n1.5\n2\n")
    assert "column 'v': 1 whole number above 2^24 rounded to float32" in source.notes[0]


# --- how CSV files are written ---


def test_column_twice_is_refused(open_text: Open) -> None:
    with pytest.raises(UserError, match=r"column 'a' is there twice \(columns 1 and 2\)"):
        open_text("a,a,label\n1,2,x\n")


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_delimiter_is_found_and_said(mark: str, open_text: Open) -> None:
    text = "label,x\na,1\nb,2\n".replace(",", mark)
    source = open_text(text)
    assert rows(source)[1] == {"label": 1, "x": 2}
    assert "the delimiter is" in source.notes[0]
    assert not open_text(text, delimiter="tab" if mark == "\t" else mark).notes


def test_unclear_delimiter_is_refused(open_text: Open) -> None:
    with pytest.raises(UserError, match="give --delimiter"):
        open_text("label;x\na;1\nb;2;3\n")
    with pytest.raises(UserError, match="give one character"):
        open_text("a,b\n1,2\n", delimiter="--")


def test_decimal_commas_between_semicolons_are_cells(open_text: Open) -> None:
    assert rows(open_text("a;b\n1,5;2\n"))[0] == {"a": b"1,5", "b": 2}


def test_names_are_stripped(open_text: Open) -> None:
    source = open_text("a, label\n1, x\n2, y\n")
    assert rows(source) == [{"a": 1, "label": 0}, {"a": 2, "label": 1}]
    assert source.stats.label_names == ("x", "y")


def test_numbers_as_names_are_refused(open_text: Open) -> None:
    text = "1.5,2.5,cat\n3.5,4.5,dog\n"
    with pytest.raises(UserError, match=r"the number 1.5 as the name.*--no_header"):
        open_text(text)
    assert rows(open_text(text, no_header=True))[0] == {
        "column_1": 1.5, "column_2": 2.5, "column_3": b"cat"
    }  # fmt: skip
    named = open_text(text, no_header=True, columns="a:float,b,label")
    assert rows(named)[1] == {"a": 3.5, "b": 4.5, "label": 1}
    assert rows(open_text("2019,2020\n1,2\n", no_header=False)) == [{"2019": 1, "2020": 2}]


def test_other_encodings_need_encoding(open_text: Open) -> None:
    latin = "n,label\n1,é\n".encode("latin-1")
    with pytest.raises(UserError, match=r"line 2: it is not UTF-8: give the file's --encoding"):
        open_text(latin)
    late = ("n,label\n" + "1,e\n" * 400_000).encode() + "2,é\n".encode("latin-1")
    with pytest.raises(UserError, match=r"line 400002: it is not UTF-8.*--encoding"):
        open_text(late)
    assert open_text(latin, encoding="latin-1").stats.label_names == ("é",)
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        assert open_text("n,label\n1,é\n".encode(encoding)).stats.label_names == ("é",)
    with pytest.raises(UserError, match="--encoding=utf-16-le"):
        open_text("n,label\n1,é\n".encode("utf-16-le"))
    with pytest.raises(UserError, match="--encoding=klingon is unknown"):
        open_text(latin, encoding="klingon")


@pytest.mark.parametrize(
    "text",
    [
        ",a,label\n0,1,x\n1,2,y\n",  # pandas' index
        "Unnamed: 0,a,label\n0,1,x\n1,2,y\n",
        "a,label\n1,1,x\n2,2,y\n",  # R's
        "a,label\n1,x,\n2,y,\n",  # a delimiter at the end of each row
        "a,label,\n1,x,\n2,y,\n",
    ],
)
def test_index_and_trailing_delimiters_are_left_out(text: str, open_text: Open) -> None:
    source = open_text(text)
    assert rows(source) == [{"a": 1, "label": 0}, {"a": 2, "label": 1}]
    assert "left out column" in source.notes[0]


def test_column_without_a_name_but_with_content_is_kept(open_text: Open) -> None:
    source = open_text(",a\n7,1\n5,2\n")
    assert rows(source) == [{"column_1": 7, "a": 1}, {"column_1": 5, "a": 2}]
    assert source.notes == ("column 'column_1' has no name in the table",)


def test_quoted_cells_span_lines(open_text: Open) -> None:
    source = open_text('a,c\n"x\ny",1\n"p, ""q""",2\n')
    assert rows(source) == [{"a": b"x\ny", "c": 1}, {"a": b'p, "q"', "c": 2}]
    with pytest.raises(UserError, match="cannot be shown"):
        open_text('"a\nb",c\n1,2\n')
    with pytest.raises(UserError, match=r"\(line 4\)"):
        open_text('a,c\n"x\ny",1\n"p",NA\n')


# --- types of Arrow ---


def test_empty_lists_have_the_type_of_the_column(tmp_path: Path, open_text: Open) -> None:
    source = open_text('{"a": []}\n{"a": [1, 2]}\n', "t.jsonl")
    assert rows(source) == [{"a": []}, {"a": [1, 2]}]
    assert [r.kind for i in range(2) for r in source.encoded(i).schema] == ["int64", "int64"]
    text = pa.array([[], ["x", "yz"]], pa.list_(pa.string()))
    assert rows(open_arrow(tmp_path, {"t": text})) == [{"t": []}, {"t": [b"x", b"yz"]}]


def test_nested_lists_of_one_shape_are_shapes(tmp_path: Path) -> None:
    source = open_arrow(
        tmp_path,
        {
            "m": [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]],
            "deep": [[[1, 2]], [[3, 4], [5, 6]]],
        },
    )
    assert rows(source)[1] == {"m": [[5, 6], [7, 8]], "deep": [[3, 4], [5, 6]]}
    assert [f.shape for f in source.encoded(1).schema] == [(2, 2), (2, 2)]
    with pytest.raises(UserError, match="lists of lists of different lengths"):
        open_arrow(tmp_path, {"m": [[[1.0], [2.0, 3.0]]]})


def test_dates_times_and_decimals_become_numbers(tmp_path: Path) -> None:
    at = datetime(1970, 1, 2, tzinfo=timezone.utc)
    source = open_arrow(
        tmp_path,
        {
            "day": [date(1970, 1, 11)],
            "at": pa.array([at], pa.timestamp("ms", "UTC")),
            "took": pa.array([timedelta(seconds=2)], pa.duration("us")),
            "price": [Decimal("2.50")],
            "ok": [True],
        },
    )
    assert rows(source) == [
        {"day": 10, "at": 86_400_000, "took": 2_000_000, "price": 2.5, "ok": 1}
    ]
    assert set(source.notes) == {
        "column 'day': dates as days since 1970-01-01",
        "column 'at': times as milliseconds since 1970-01-01 UTC",
        "column 'took': durations as microseconds",
        "column 'price': decimal128(3, 2) as float",
        "column 'ok': True and False as 1 and 0",
    }


def test_structs_dictionaries_and_images_are_flattened(
    tmp_path: Path, make_image: Callable[..., bytes]
) -> None:
    png = make_image(seed=1)
    source = open_arrow(
        tmp_path,
        {
            "img": [{"bytes": png, "path": "a.png"}],
            "a": [{"x": 1, "b": {"y": "t"}}],
            "boxes": [[{"l": 1, "t": 2}, {"l": 3, "t": 4}]],
            "color": pa.array(["red"]).dictionary_encode(),
        },
    )
    assert rows(source) == [
        {"image": png, "a.x": 1, "a.b.y": b"t", "boxes.l": [1, 3], "boxes.t": [2, 4],
         "color": b"red"}
    ]  # fmt: skip
    assert source.encoded(0).schema[-1].kind == "image"


def test_type_without_a_place_in_an_example_is_refused(tmp_path: Path) -> None:
    kind = pa.map_(pa.string(), pa.int64())
    with pytest.raises(UserError, match=r"column 'm' is of Arrow's type map.*--columns"):
        open_arrow(tmp_path, {"m": pa.array([[("a", 1)]], kind), "b": [1]})
    chosen = open_path(tmp_path / "t.parquet", tmp_path, columns="b")
    assert rows(chosen) == [{"b": 1}]


def test_json_text_that_looks_like_dates_stays_text(open_text: Open) -> None:
    source = open_text('{"d": "2024-01-01", "l": ["2024-01-01"]}\n', "t.jsonl")
    assert rows(source) == [{"d": b"2024-01-01", "l": [b"2024-01-01"]}]


# --- labels and columns ---


@pytest.mark.parametrize(
    ("labels", "names", "stored"),
    [
        (["5", "7", "100"], ("5", "7", "100"), [0, 1, 2]),
        (["-1", "1"], ("-1", "1"), [0, 1]),
        (["0", "1"], (), [0, 1]),
        (["b", "a"], ("a", "b"), [1, 0]),
        (["0.5", "1.5"], (), [0.5, 1.5]),  # a target, no class
    ],
)
def test_labels_are_class_indices(
    labels: list[str], names: tuple[str, ...], stored: list[float], open_text: Open
) -> None:
    source = open_text("label\n" + "".join(f"{label}\n" for label in labels))
    assert source.stats.label_names == names
    assert [row["label"] for row in rows(source)] == stored


def test_one_hot_labels_become_class_indices(tmp_path: Path) -> None:
    vectors = {"y": [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], "v": [1, 2]}
    source = open_arrow(tmp_path, vectors)
    assert [row["label"] for row in rows(source)] == [2, 0]
    assert source.stats.num_classes == 3
    kept = open_arrow(tmp_path, vectors, one_hot="never")
    assert rows(kept)[0]["label"] == [0, 0, 1]


def test_columns_choose_and_type(open_text: Open) -> None:
    source = open_text("a,b,c\n1,2,3\n", columns="a:float,c:text")
    assert rows(source) == [{"a": 1.0, "c": b"3"}]
    assert source.notes == ("left out 1 column that --columns does not list: b",)
    assert rows(open_text("a,b,c\n1,2,3\n", columns="a:text,*")) == [{"a": b"1", "b": 2, "c": 3}]
    with pytest.raises(UserError, match="there is no column 'aa': did you mean 'a'"):
        open_text("a,b\n1,2\n", columns="aa")


@pytest.mark.parametrize("text", ["a:int", ":float", "a,a", "a:float,a"])
def test_columns_of_no_meaning_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--columns"):
        parse_columns(text)


def test_two_columns_cannot_be_one_feature(open_text: Open) -> None:
    with pytest.raises(UserError, match="would both be the feature 'label'"):
        open_text("label,kind\n1,2\n", label="kind")


def test_options_of_tables_are_refused_for_other_sources(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    with pytest.raises(UserError, match="--missing, --delimiter: only a table takes this"):
        open_path(tmp_path / "x.npy", tmp_path, missing="zero", delimiter=";")


# --- parts, compression ---


def test_parts_in_partitions_are_one_table(tmp_path: Path, open_text: Open) -> None:
    for year, value in (("2023", "1"), ("2024", "2.5")):
        open_text(f"v\n{value}\n", f"parts/year={year}/a.csv")
    (tmp_path / "parts" / "_SUCCESS").touch()
    expected = [{"v": 1.0, "year": 2023}, {"v": 2.5, "year": 2024}]
    assert rows(open_path(tmp_path / "parts", tmp_path)) == expected
    assert rows(open_path(tmp_path / "parts" / "**" / "*.csv", tmp_path)) == expected
    source = open_path(tmp_path / "parts", tmp_path)
    assert source.name(1).endswith("year=2024/a.csv: row 0")


def test_parts_named_by_splits_are_splits(tmp_path: Path, open_text: Open) -> None:
    for name, value in (("test", 3), ("train-00001", 2), ("train-00000", 1), ("val", 4)):
        open_text(f"v\n{value}\n", f"parts/{name}.csv")
    source = open_path(tmp_path / "parts", tmp_path)
    splits = [(split.name, split.examples) for split in source.splits]  # type: ignore[attr-defined]
    assert splits == [("train", 2), ("validation", 1), ("test", 1)]
    assert [row["v"] for row in rows(source)] == [1, 2, 4, 3]


def test_parts_of_two_formats_are_refused(tmp_path: Path, open_text: Open) -> None:
    open_text("v\n1\n", "parts/a.csv")
    open_text('{"v": 1}\n', "parts/b.jsonl")
    with pytest.raises(UserError, match="holds CSV and JSONL files"):
        open_path(tmp_path / "parts", tmp_path)


def test_compressed_text_and_feather_are_read(tmp_path: Path, open_text: Open) -> None:
    expected = [{"v": 1}, {"v": 2}]
    assert rows(open_text(gzip.compress(b"v\n1\n2\n"), "t.csv.gz")) == expected
    zst = pa.compress(b'{"v": 1}\n{"v": 2}\n', "zstd", asbytes=True)
    assert rows(open_text(zst, "t.jsonl.zst")) == expected
    feather.write_feather(pa.table({"v": [1, 2]}), str(tmp_path / "t.feather"))
    assert rows(open_path(tmp_path / "t.feather", tmp_path)) == expected
    with pytest.raises(UserError, match="is not a CSV file, or damaged"):
        open_text(b"v,no gzip\n", "d.csv.gz")


VALUES = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8),
    st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=8),
)


@given(VALUES, st.sampled_from(["csv", "jsonl", "parquet"]))
def test_numbers_survive_every_format(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("t")
    path = folder / f"t.{suffix}"
    if suffix == "parquet":
        parquet.write_table(pa.table({"v": values}), path)
    elif suffix == "csv":
        path.write_text("v\n" + "".join(f"{value!r}\n" for value in values))
    else:
        if any(abs(value) == float("inf") for value in values):
            return  # JSON has no infinity
        path.write_text("".join(json.dumps({"v": value}) + "\n" for value in values))
    source = open_path(path, folder)
    assert [row["v"] for row in rows(source)] == values
    sizes = [len(source.encoded(index).payload) + 16 for index in range(len(values))]
    assert (source.stats.total_bytes, source.stats.max_record_bytes) == (sum(sizes), max(sizes))
