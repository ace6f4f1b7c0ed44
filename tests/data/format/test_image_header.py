"""Shapes of images against TensorFlow's, and damaged images."""

from collections.abc import Callable

import pytest

from tenfold.data.format.image_header import image_shape, is_image

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
def test_shape_equals_tensorflow(form: str, mode: str, make_image: Callable[..., bytes]) -> None:
    import tensorflow as tf

    for height, width in [(1, 1), (7, 300), (64, 33)]:
        data = make_image(form=form, height=height, width=width, mode=mode)
        assert is_image(data)
        assert image_shape(data) == tuple(tf.io.decode_image(data).shape)


@pytest.mark.parametrize(("form", "mode"), [("PNG", "RGB"), ("JPEG", "RGB")])
def test_image_cut_anywhere_raises(form: str, mode: str, make_image: Callable[..., bytes]) -> None:
    data = make_image(form=form, mode=mode, height=20, width=20)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"cut|empty|neither"):
            image_shape(data[:length])


def test_png_with_any_flipped_byte_raises(make_image: Callable[..., bytes]) -> None:
    data = make_image(form="PNG", mode="RGB")
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x40
        with pytest.raises(ValueError):
            image_shape(bytes(damaged))


def test_other_formats_raise() -> None:
    for data in (b"", b"hello, I am text", b"GIF89a" + bytes(50)):
        assert not is_image(data)
        with pytest.raises(ValueError, match=r"empty|neither"):
            image_shape(data)
