"""Decoders agree with each other, and with TensorFlow's ops record by record."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFilter

from tenfold.data.errors import UserError
from tenfold.data.reading.decoding.decoders import DECODERS, make_decoder, resolve_decoder

TOLERANCE = 1  # of 255 levels: the rounding of OpenCV's fixed-point resize

WHOLE = [0.0, 0.0, 1.0, 1.0, 0.0]
VIEWS = [WHOLE, [0.0, 0.0, 1.0, 1.0, 1.0], [0.25, 0.1, 0.5, 0.6, 0.0], [0.6, 0.3, 0.4, 0.7, 1.0]]


def photograph(height: int, width: int, *, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """An image as smooth as photographs are."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).convert(mode)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def grey_16_bit() -> bytes:
    pixels = np.asarray(photograph(40, 30, mode="L"), np.uint16) * 257
    return encoded(Image.fromarray(pixels), "PNG")


IMAGES: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(photograph(101, 75), "JPEG", quality=90),
    "jpeg 4:4:4": lambda: encoded(photograph(64, 200), "JPEG", quality=75, subsampling=0),
    "jpeg progressive": lambda: encoded(photograph(97, 131), "JPEG", progressive=True),
    "jpeg grey": lambda: encoded(photograph(80, 60, mode="L"), "JPEG"),
    "jpeg cmyk": lambda: encoded(photograph(50, 70, mode="CMYK"), "JPEG"),
    "jpeg of the wanted size": lambda: encoded(photograph(48, 40), "JPEG"),
    "jpeg of one pixel": lambda: encoded(photograph(1, 1), "JPEG"),
    "png": lambda: encoded(photograph(90, 70), "PNG"),
    "png grey": lambda: encoded(photograph(33, 21, mode="L"), "PNG"),
    "png alpha": lambda: encoded(photograph(60, 64, mode="RGBA"), "PNG"),
    "png palette": lambda: encoded(photograph(60, 64).quantize(32), "PNG"),
    "png 16 bit": grey_16_bit,
    "gif": lambda: encoded(photograph(40, 44).quantize(32), "GIF"),
    "bmp": lambda: encoded(photograph(40, 44), "BMP"),
}
GREY_TOO = ("jpeg", "jpeg grey", "png grey", "png", "jpeg progressive")


def decode(name: str, data: list[bytes], shape: tuple[int, int, int], views: Any = None) -> Any:
    views = None if views is None else tf.constant(views, tf.float32)
    result = tf.function(make_decoder(name, shape))(tf.constant(data), views)
    assert result.dtype == tf.uint8
    assert result.shape[1:] == shape
    return result.numpy()


def difference(one: Any, other: Any) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("kind", IMAGES)
def test_turbo_decodes_what_tensorflow_does(kind: str) -> None:
    data = [IMAGES[kind]()] * len(VIEWS)
    for shape in [(48, 40, 3), (150, 140, 3)]:
        ours, theirs = (decode(name, data, shape, VIEWS) for name in ("turbo", "tf"))
        assert difference(ours, theirs) <= TOLERANCE
    # The comparison can fail: the views differ from each other by far more.
    if kind != "jpeg of one pixel":
        assert difference(ours[0], ours[2]) > 20
        assert difference(ours[0], ours[1]) > 20


@pytest.mark.parametrize("kind", GREY_TOO)
def test_grey_images(kind: str) -> None:
    data = [IMAGES[kind]()] * len(VIEWS)
    ours, theirs = (decode(name, data, (32, 36, 1), VIEWS) for name in ("turbo", "tf"))
    assert difference(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("name", ["tf", "turbo"])
def test_a_mixed_batch_equals_tensorflow_record_by_record(name: str) -> None:
    data = [make() for make in IMAGES.values()]
    images = decode(name, data, (45, 50, 3))
    for at, one in enumerate(data):
        whole = tf.io.decode_image(one, channels=3, expand_animations=False)
        expected = tf.image.resize(whole, (45, 50)).numpy()
        assert np.abs(images[at] - expected).max() <= TOLERANCE, list(IMAGES)[at]


def test_a_mirrored_view_is_the_view_mirrored() -> None:
    data = [IMAGES["jpeg"]()] * 2
    for name in DECODERS:
        plain, mirrored = decode(name, data, (40, 40, 3), VIEWS[:2])
        assert np.array_equal(plain[:, ::-1], mirrored)


def test_scaled_decoding_is_near_and_only_for_far_larger_images() -> None:
    large = [encoded(photograph(401, 333), "JPEG", quality=95)]
    scaled, full = (decode(name, large, (50, 40, 3)) for name in ("turbo_scaled", "turbo"))
    assert not np.array_equal(scaled, full)
    assert np.abs(scaled.astype(int) - full.astype(int)).mean() < 12
    for shape in [(210, 100, 3), (100, 180, 3)]:  # one side is not half as large
        scaled, full = (decode(name, large, shape) for name in ("turbo_scaled", "turbo"))
        assert np.array_equal(scaled, full)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_damaged_image_is_an_error(name: str, kind: str) -> None:
    data = IMAGES[kind]()
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(name, [data, data[: len(data) // 2]], (20, 20, 3))
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(name, [data, b"no image"], (20, 20, 3))


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_decoder("auto") == "turbo"
    with pytest.raises(UserError, match="decoder 'fast' is none of: auto, tf, turbo"):
        resolve_decoder("fast")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert resolve_decoder("auto") == "tf"
    with pytest.raises(
        UserError, match=r"needs simplejpeg and cv2: pip install 'tenfold\[fast\]'"
    ):
        resolve_decoder("turbo")
