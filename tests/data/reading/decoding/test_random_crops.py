"""Random crops: their inputs, their distribution, and the options that name them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.reading.decoding.augment_options import AugmentOptions, parse_augment
from tenfold.data.reading.decoding.random_crops import random_crop_flip

BOTH = AugmentOptions(flip=True, min_side=0.4)
MASK = 2**64 - 1


def crops(
    prints: list[int], augment: AugmentOptions = BOTH, *, seed: int = 3, epoch: int = 0
) -> Any:
    return random_crop_flip(
        augment, np.array(prints, np.uint64).view(np.int64), seed=seed, epoch=epoch
    )


def mix(value: int) -> int:
    """splitmix64's finalizer, as its authors publish it."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


@given(st.integers(0, MASK), st.integers(0, 2**40), st.integers(0, 1000))
def test_draws_are_splitmix64(fingerprint: int, seed: int, epoch: int) -> None:
    golden = 0x9E3779B97F4A7C15
    state = mix(fingerprint ^ mix(seed + epoch * golden & MASK))
    draws = [(mix(state + golden * (n + 1) & MASK) >> 40) / 2**24 for n in range(5)]
    (crop,) = crops([fingerprint], seed=seed, epoch=epoch)
    scale, stretch = 0.4 + 0.6 * draws[0], 7 / 8 + (8 / 7 - 7 / 8) * draws[1]
    height, width = min(1, scale * stretch), min(1, scale / stretch)
    expected = [draws[2] * (1 - height), draws[3] * (1 - width), height, width]
    assert crop[:4] == pytest.approx(expected, abs=1e-5)
    assert crop[4] == (draws[4] < 0.5)


@pytest.fixture(scope="module")
def many() -> list[int]:
    return np.random.default_rng(0).integers(0, MASK, 4000, np.uint64).tolist()


def test_crop_does_not_depend_on_place_in_batch(many: list[int]) -> None:
    whole = crops(many)
    for size in (1, 3, 17):
        for first in (0, 5, 1000):
            part = crops(many[first : first + size])
            assert np.array_equal(part, whole[first : first + size])


def test_epochs_and_seeds_differ(many: list[int]) -> None:
    drawn = [crops(many, epoch=0), crops(many, epoch=1), crops(many, seed=4)]
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        for column in range(4):
            assert abs(np.corrcoef(drawn[first][:, column], drawn[second][:, column])[0, 1]) < 0.06


def test_crops_lie_within_and_spread_over_the_image(many: list[int]) -> None:
    top, left, height, width, mirrored = crops(many).T
    for begin, extent in ((top, height), (left, width)):
        assert begin.min() >= 0
        assert (begin + extent).max() <= 1 + 1e-6
        assert 0.35 <= extent.min() < 0.4
        assert extent.max() == 1
    ratio = height / width
    assert 0.75 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 4 / 3
    assert set(mirrored) == {0.0, 1.0}
    assert 0.47 < mirrored.mean() < 0.53


def test_flip_and_crop_are_independent_options(many: list[int]) -> None:
    flipped = crops(many, AugmentOptions(flip=True))
    assert np.array_equal(flipped[:, :4], [[0, 0, 1, 1]] * len(many))
    assert not crops(many, AugmentOptions(min_side=0.5))[:, 4].any()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", AugmentOptions()),
        ("flip", AugmentOptions(flip=True)),
        ("crop", AugmentOptions(min_side=0.5)),
        (" flip , crop:0.3", AugmentOptions(flip=True, min_side=0.3)),
        ("crop:1", AugmentOptions(min_side=1.0)),
    ],
)
def test_parse_augment(text: str, expected: AugmentOptions) -> None:
    assert parse_augment(text) == expected
    assert bool(expected) == (text != "")


@pytest.mark.parametrize(
    "text", ["spin", "crop:", "crop:0", "crop:1.5", "crop:x", "flip:1", "crop:nan"]
)
def test_parse_augment_refuses_mistakes(text: str) -> None:
    with pytest.raises(UserError, match="augment"):
        parse_augment(text)
