"""Shapes and wholeness of pictures, against what TensorFlow decodes."""

from collections.abc import Callable

import pytest

from tenfold.data.format.image_header import is_picture, picture_shape

FORMS = [
    ("PNG", "L"),
    ("PNG", "LA"),
    ("PNG", "RGB"),
    ("PNG", "RGBA"),
    ("PNG", "P"),
    ("JPEG", "L"),
    ("JPEG", "RGB"),
    ("JPEG", "CMYK"),
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("form", "mode"), FORMS)
def test_the_shape_is_tensorflows(
    form: str, mode: str, make_picture: Callable[..., bytes]
) -> None:
    import tensorflow as tf

    for height, width in [(1, 1), (7, 300), (64, 33)]:
        data = make_picture(form=form, height=height, width=width, mode=mode)
        assert is_picture(data)
        assert picture_shape(data) == tuple(tf.io.decode_image(data).shape)


@pytest.mark.parametrize(("form", "mode"), [("PNG", "RGB"), ("JPEG", "RGB")])
def test_every_cut_is_found(form: str, mode: str, make_picture: Callable[..., bytes]) -> None:
    data = make_picture(form=form, mode=mode, height=20, width=20)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"cut|empty|neither"):
            picture_shape(data[:length])


def test_every_flipped_byte_of_a_png_is_found(make_picture: Callable[..., bytes]) -> None:
    data = make_picture(form="PNG", mode="RGB")
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x40
        with pytest.raises(ValueError):
            picture_shape(bytes(damaged))


def test_other_things_are_refused() -> None:
    for data in (b"", b"hello, I am text", b"GIF89a" + bytes(50)):
        assert not is_picture(data)
        with pytest.raises(ValueError, match=r"empty|neither"):
            picture_shape(data)
