"""The shuffle: a permutation, well mixed, small, and frozen."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.planning.permutation import Permutation

FIRST_TEN = [9, 8, 4, 2, 5, 3, 0, 7, 1, 6]
LARGE = [646814377255, 983720045066, 558466080333]


@given(st.integers(1, 3000), st.integers(0, 2**64))
def test_every_item_occurs_once(n: int, seed: int) -> None:
    assert sorted(map(Permutation(n, seed).__getitem__, range(n))) == list(range(n))


@given(st.integers(1, 10**12), st.integers(0, 9), st.lists(st.integers(0, 10**12), max_size=9))
def test_items_taken_together_equal_items_taken_singly(n: int, seed: int, at: list[int]) -> None:
    positions = [position % n for position in at]
    order = Permutation(n, seed)
    assert order.take(np.array(positions, np.int64)).tolist() == [order[p] for p in positions]


def test_order_is_frozen() -> None:
    # Another order would change the shards of existing data sets.
    assert [Permutation(10, 0)[i] for i in range(10)] == FIRST_TEN
    assert [Permutation(10**12, 7)[i] for i in (0, 1, 10**12 - 1)] == LARGE


def test_order_looks_random() -> None:
    n = 10_000
    order = [Permutation(n, 3)[i] for i in range(n)]
    # In a random permutation about one item keeps its place, and each half mixes evenly.
    assert sum(i == item for i, item in enumerate(order)) < 10
    assert abs(sum(item < n // 2 for item in order[: n // 2]) - n // 4) < 200
    neighbours = sum(abs(a - b) == 1 for a, b in pairwise(order))
    assert neighbours < 20
    ascents = sum(a < b for a, b in pairwise(order))
    assert abs(ascents - n / 2) < 200


def test_seeds_and_sizes_give_different_orders() -> None:
    orders = {
        tuple(Permutation(n, seed)[i] for i in range(50)) for n in (1000, 1001) for seed in (0, 1)
    }
    assert len(orders) == 4


def test_huge_permutation_takes_little_memory() -> None:
    assert len(pickle.dumps(Permutation(10**9, 0))) < 2_000_000


@pytest.mark.parametrize("index", [-1, 5])
def test_index_outside_the_range_raises(index: int) -> None:
    with pytest.raises(IndexError):
        Permutation(5, 0)[index]
