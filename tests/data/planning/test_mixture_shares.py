"""Shares of data sets in a batch: the texts that name them, and whole numbers of records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.planning.mixture_shares import (
    DataShare,
    apportion,
    check_one_folder,
    parse_data_shares,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shards", (DataShare("shards"),)),
        ("with:0.5", (DataShare("with:0.5"),)),
        ("a,b", (DataShare("a,b"),)),
        ("a:0.7,b:0.3", (DataShare("a", 0.7), DataShare("b", 0.3))),
        (
            "gs://x/a:7, s3://y:9000/b:.5",
            (DataShare("gs://x/a", 7), DataShare("s3://y:9000/b", 0.5)),
        ),
    ],
)
def test_data_sets_are_named(text: str, expected: tuple[DataShare, ...]) -> None:
    assert parse_data_shares(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:0.7,b", "'b' has no share: write each as PATH:SHARE"),
        ("a:0.7,b:0", "'b' have the share 0: it must be above 0"),
        ("a:0.7,a:0.3", "'a' is named twice"),
    ],
)
def test_wrong_mixture_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_data_shares(text)


def test_mixture_is_refused_where_one_folder_is_read() -> None:
    check_one_folder("a,b", "bench")
    with pytest.raises(UserError, match="is a mixture, and bench reads one data set"):
        check_one_folder("a:1,b:2", "bench")


@given(
    st.integers(0, 10_000),
    st.lists(st.floats(1e-3, 1e3, allow_nan=False), min_size=1, max_size=20),
)
def test_records_are_apportioned(total: int, shares: list[float]) -> None:
    counts = apportion(total, shares)
    assert sum(counts) == total
    exact = [total * share / sum(shares) for share in shares]
    assert all(abs(count - value) < 1 for count, value in zip(counts, exact, strict=True))
