"""Columns: the values of many records by feature."""

import numpy as np
import pytest

from tenfold.data.format.columns import (
    Column,
    Columns,
    bytes_column,
    list_column,
    number_column,
)


def test_columns_give_the_values_of_each_row():
    numbers = number_column(np.arange(6, dtype=np.float64).reshape(3, 2))
    lists = list_column(np.array([7, 8, 9], np.uint8), np.array([2, 0, 1]))
    texts = bytes_column(["a", b"", "ä"], present=np.array([True, False, True]))
    pairs = bytes_column([b"1", b"2", b"3", b"4"], shape=(2,))

    assert [numbers.row(index).tolist() for index in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert [lists.row(index).tolist() for index in range(3)] == [[7, 8], [], [9]]
    assert [texts.row(index) for index in range(3)] == [b"a", None, "ä".encode()]
    assert [pairs.row(index) for index in range(2)] == [[b"1", b"2"], [b"3", b"4"]]
    assert (numbers.kind, lists.kind) == ("float", "int64")
    assert [len(numbers), len(lists), len(texts), len(pairs)] == [3, 3, 3, 2]


def test_number_too_large_for_int64_is_refused():
    with pytest.raises(ValueError, match="18446744073709551615, which is no 64-bit integer"):
        number_column(np.array([2**64 - 1], np.uint64))


def test_columns_of_different_lengths_are_refused():
    column = number_column(np.zeros(3))
    with pytest.raises(AssertionError):
        Columns(2, {"a": column})
    with pytest.raises(AssertionError):
        Column("float", np.zeros(3))
