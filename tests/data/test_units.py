"""Sizes as people write them."""

import pytest

from tenfold.data.errors import UserError
from tenfold.data.units import parse_image_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32x48", (32, 48)),  # height first
        ("32X48", (32, 48)),
        ("32", (32, 32)),  # one number is square
        ("16384", (16384, 16384)),
    ],
)
def test_image_size_is_height_and_width(text: str, size: tuple[int, int]) -> None:
    assert parse_image_size(text, f"--image_size={text}") == size


@pytest.mark.parametrize("text", ["", "0", "1x2x3", "x", "3x", "-1", "a", "16385", "٣"])
def test_image_size_names_flag_and_rule(text: str) -> None:
    with pytest.raises(UserError, match=r"^--image_size=.*: (write the size as|a side has 1 to)"):
        parse_image_size(text, f"--image_size={text}")
