"""Decoders agree with each other, and with TensorFlow's ops record by record."""

import io
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFilter

from tenfold.data import ReadOptions, UserError, evaluation_dataset, training_dataset
from tenfold.data.format.manifest import Feature
from tenfold.data.reading.decoding.decoders import (
    DECODERS,
    PythonDecoder,
    check_decoder,
    load_decoder,
    make_decoder,
    resolve_decoder,
)

TOLERANCE = 1  # of 255 levels: the rounding of OpenCV's fixed-point resize

WHOLE = [0.0, 0.0, 1.0, 1.0, 0.0]
CROPS = [WHOLE, [0.0, 0.0, 1.0, 1.0, 1.0], [0.25, 0.1, 0.5, 0.6, 0.0], [0.6, 0.3, 0.4, 0.7, 1.0]]


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


def decode(name: str, data: list[bytes], shape: tuple[int, int, int], crops: Any = None) -> Any:
    decoder = make_decoder(name, shape)
    if isinstance(decoder, PythonDecoder):
        boxes = None if crops is None else np.array(crops, np.float32)
        result = decoder.decode_batch(data, boxes, "image {}".format)
    else:
        boxes = None if crops is None else tf.constant(crops, tf.float32)
        result = tf.function(decoder)(tf.constant(data), boxes).numpy()
    assert result.dtype == np.uint8
    assert result.shape == (len(data), *shape)
    return result


def difference(images: Any, others: Any) -> int:
    return int(np.abs(images.astype(int) - others.astype(int)).max())


@pytest.mark.parametrize("kind", IMAGES)
def test_turbo_equals_tensorflow(kind: str) -> None:
    data = [IMAGES[kind]()] * len(CROPS)
    for shape in [(48, 40, 3), (150, 140, 3)]:
        ours, theirs = (decode(name, data, shape, CROPS) for name in ("turbo", "tf"))
        assert difference(ours, theirs) <= TOLERANCE
    # The comparison can fail: the crops differ from each other by far more.
    if kind != "jpeg of one pixel":
        assert difference(ours[0], ours[2]) > 20
        assert difference(ours[0], ours[1]) > 20


@pytest.mark.parametrize("kind", GREY_TOO)
def test_grey_images(kind: str) -> None:
    data = [IMAGES[kind]()] * len(CROPS)
    ours, theirs = (decode(name, data, (32, 36, 1), CROPS) for name in ("turbo", "tf"))
    assert difference(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("name", ["tf", "turbo"])
def test_mixed_batch_equals_single_images(name: str) -> None:
    data = [make() for make in IMAGES.values()]
    images = decode(name, data, (45, 50, 3))
    for index, image in enumerate(data):
        whole = tf.io.decode_image(image, channels=3, expand_animations=False)
        expected = tf.image.resize(whole, (45, 50)).numpy()
        assert np.abs(images[index] - expected).max() <= TOLERANCE, list(IMAGES)[index]


def test_flip_mirrors_the_crop() -> None:
    data = [IMAGES["jpeg"]()] * 2
    for name in DECODERS:
        plain, mirrored = decode(name, data, (40, 40, 3), CROPS[:2])
        assert np.array_equal(plain[:, ::-1], mirrored)


def test_turbo_scaled_scales_only_far_larger_images() -> None:
    large = [encoded(photograph(401, 333), "JPEG", quality=95)]
    scaled, full = (decode(name, large, (50, 40, 3)) for name in ("turbo_scaled", "turbo"))
    assert not np.array_equal(scaled, full)
    assert np.abs(scaled.astype(int) - full.astype(int)).mean() < 12
    for shape in [(210, 100, 3), (100, 180, 3)]:  # one side is not half as large
        scaled, full = (decode(name, large, shape) for name in ("turbo_scaled", "turbo"))
        assert np.array_equal(scaled, full)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_damaged_image_is_an_error(name: str, kind: str) -> None:
    data = IMAGES[kind]()
    errors = (ValueError, tf.errors.InvalidArgumentError)
    named = None if name == "tf" else "^image 1 cannot be decoded: "
    for damaged in (data[: len(data) // 2], b"no image"):
        with pytest.raises(errors, match=named):
            decode(name, [data, damaged], (20, 20, 3))


def test_auto_takes_the_fastest_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_decoder("auto") == "turbo"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert resolve_decoder("auto") == "tf"
    with pytest.raises(
        UserError, match=r"needs simplejpeg and cv2: pip install 'tenfold\[fast\]'"
    ):
        resolve_decoder("turbo")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trubo", "unknown decoder 'trubo': did you mean 'turbo'?"),
        ("pillow", "there are auto, tf, turbo, turbo_scaled; write module:name or file.py:name"),
        ("turbo:", "unknown decoder"),
    ],
)
def test_unknown_decoder_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_decoder(name)


# --- decoders of one's own ---

OWN = """
import io

import numpy as np
from PIL import Image


class PillowDecoder:
    def __init__(self, shape):
        self.height, self.width, _ = shape

    def decode_batch(self, encoded, crops, describe):
        return np.stack([self.decode(data) for data in encoded])

    def decode(self, data):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return np.asarray(image.resize((self.width, self.height), Image.Resampling.BILINEAR))


def in_graph(shape):
    import tensorflow as tf

    return lambda encoded, crops: tf.zeros([tf.shape(encoded)[0], *shape], tf.uint8)


def nothing(shape):
    return shape


number = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own_decoders.py").write_text(OWN)
    return str(tmp_path / "own_decoders.py")


def test_own_decoder_is_loaded_from_a_file(own: str) -> None:
    data = [IMAGES["jpeg"](), IMAGES["png"]()]
    images = decode(f"{own}:PillowDecoder", data, (101, 75, 3))
    whole = tf.io.decode_image(data[0], channels=3).numpy()
    assert difference(images[0], whole) < 10
    assert not decode(f"{own}:in_graph", data, (20, 20, 3)).any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "is int: give a class, or a function"),
        ("nothing", "makes a tuple, which has neither decode_batch nor __call__"),
        ("missing", "own_decoders has no 'missing'"),
    ],
)
def test_own_decoder_that_is_none_is_refused(own: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_decoder(f"{own}:{name}", (20, 20, 3))


def test_datasets_take_own_decoders(own: str, make_shards: Callable[..., Path]) -> None:
    features = (Feature("image", "image", (80, 60, 3)), Feature("label", "int64", ()))
    data = encoded(photograph(80, 60), "JPEG")
    examples = [{"image": data, "label": number} for number in range(8)]
    shards = str(make_shards(examples, num_shards=2, num_lanes=1, features=features))
    factories = (f"{own}:PillowDecoder", load_decoder(f"{own}:PillowDecoder"))
    for decoder in factories:
        options = ReadOptions(decoder=decoder, image_size=(40, 30), image_dtype="uint8")
        x, y = next(iter(training_dataset(shards, global_batch_size=4, options=options)))
        assert len(set(y.numpy().tolist())) == 4
        assert difference(x.numpy(), decode(f"{own}:PillowDecoder", [data] * 4, (40, 30, 3))) == 0
    options = ReadOptions(decoder=f"{own}:in_graph", image_size=(40, 30))
    for x, *_ in evaluation_dataset(shards, global_batch_size=4, split="train", options=options):
        assert not x.numpy().any()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return an image with flipped bits, cut, or with bytes inserted, removed or replaced."""
    at, length = rng.randrange(len(data)), rng.randrange(1, 40)
    kind = rng.randrange(5)
    if kind == 0:
        flipped = bytes([data[at] ^ 1 << rng.randrange(8)])
        return data[:at] + flipped + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + rng.randbytes(length) + data[at:]
    if kind == 3:
        return data[:at] + data[at + length :]
    return data[:-2] + rng.randbytes(24) + data[-2:]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("channels", [1, 3])
def test_decoders_refuse_same_damaged_images(channels: int) -> None:
    rng = random.Random(channels)
    sound = [IMAGES[kind]() for kind in GREY_TOO]
    turbo, ours = (make_decoder(name, (20, 20, channels)) for name in ("turbo", "tf"))
    assert isinstance(turbo, PythonDecoder)
    assert not isinstance(ours, PythonDecoder)
    spec = tf.TensorSpec([1], tf.string)
    tensorflow = tf.function(lambda data: ours(data, None), input_signature=[spec])
    accepted = 0
    for _ in range(400):
        data = mutated(rng.choice(sound), rng)
        try:
            expected = tensorflow(tf.constant([data])).numpy()
        except tf.errors.InvalidArgumentError:
            with pytest.raises(ValueError, match=r"^image 0 cannot be decoded: "):
                turbo.decode_batch([data], None, "image {}".format)
        else:
            accepted += 1
            found = turbo.decode_batch([data], None, "image {}".format)
            assert difference(found, expected) <= TOLERANCE
    assert 50 < accepted < 350


def huge(form: str) -> bytes:
    """Return a small file whose header claims 20,000 × 20,000 pixels."""
    side = (20_000).to_bytes(2, "big")
    if form == "jpeg":
        data = IMAGES["jpeg"]()
        sides = data.index(b"\xff\xc0") + 5
        return data[:sides] + side + side + data[sides + 4 :]
    if form == "gif":
        data = IMAGES["gif"]()
        return data[:6] + side[::-1] * 2 + data[10:]
    png = bytearray(IMAGES["png"]())
    png[16:24] = (b"\0\0" + side) * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    return bytes(png)


@pytest.mark.parametrize("name", ["tf", "turbo"])
@pytest.mark.parametrize("form", ["jpeg", "png", "gif"])
def test_huge_image_is_refused_by_header(name: str, form: str) -> None:
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="150,000,000"):
        decode(name, [huge(form)], (8, 8, 3))
