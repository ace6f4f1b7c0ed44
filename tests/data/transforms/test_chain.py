"""Transforms: their results, their seeds, resumed writes, and errors."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.example import decode_example
from tenfold.data.format.image_codec import to_uint8
from tenfold.data.format.image_header import image_format, image_shape
from tenfold.data.format.manifest import Feature, Manifest
from tenfold.data.format.tfrecord import read_records
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.planning.splits.split_fractions import parse_splits
from tenfold.data.runtime.user_code import load_user_object
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.transforms.base import RecordSeed
from tenfold.data.transforms.chain import parse_chain
from tenfold.data.writing.write_shards import WriteOptions, write_shards
from tenfold.launcher.worker.python_argv import module_argv

POLICY = LayoutPolicy(num_workers=2, min_shard_bytes=1)
SPLITS = parse_splits("train:0.75,validation:0.25")


def encoded(array: np.ndarray, image_format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, image_format, quality=95)
    return out.getvalue()


def apply(texts: list[str], record: dict[str, Any], copy: int = 0, seed: int = 0) -> Any:
    [[result]] = parse_chain(texts).apply([record], [RecordSeed(5, copy, seed)])
    if isinstance(result, UnusableRecord):
        raise result
    return {name: values for name, (_, values) in decode_example(result.payload).items()}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


GRADIENT = np.stack([np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))] * 3, axis=2)


@pytest.mark.parametrize("source_format", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("resize:12x16", (12, 16, 3)),
        ("resize:20", (20, 20, 3)),
        ("resize:200x100", (200, 100, 3)),
        ("resize:32x32,fit=crop", (32, 32, 3)),
    ],
)
def test_resize_gives_shape_and_format(
    text: str, shape: tuple[int, int, int], source_format: str
) -> None:
    record = apply([text], {"image": encoded(GRADIENT, source_format), "label": 3})
    data = record["image"][0]
    assert image_shape(data) == shape
    assert image_format(data) == source_format.lower()
    assert record["label"] == [3]
    row = pixels(data)[shape[0] // 2, :, 0].astype(int)
    # The result is still a gradient: over the full range, or from 1/8 to 7/8 if cropped.
    low, high = (32, 220) if "crop" in text else (0, 252)
    assert abs(row[0] - low) < 12
    assert abs(row[-1] - high) < 12
    assert (np.diff(row) >= -3).all()


@pytest.mark.timeout(120)
def test_resize_equals_tensorflow_antialiased() -> None:
    import tensorflow as tf

    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    ours = pixels(apply(["resize:20x24"], {"image": encoded(image)})["image"][0])
    theirs = tf.image.resize(image, (20, 24), antialias=True).numpy()
    assert np.abs(ours - theirs).max() <= 1


def test_float_images_are_rounded_to_bytes() -> None:
    levels = np.arange(256, dtype=np.float32).reshape(16, 16) / np.float32(255)
    assert (to_uint8(levels) == np.arange(256).reshape(16, 16)).all()
    done = apply(["encode:png"], {"image": levels})
    assert (pixels(done["image"][0]) == np.arange(256).reshape(16, 16)).all()
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        to_uint8(levels * 255)
    with pytest.raises(ValueError, match=r"-1 to 3"):
        to_uint8(np.array([[-1, 3]]))


def test_encode_sets_format_and_quality() -> None:
    record = {"image": encoded(GRADIENT)}
    fine, coarse = (
        apply([f"encode:jpeg,quality={quality}"], record)["image"][0] for quality in (95, 10)
    )
    assert image_format(fine) == "jpeg"
    assert len(coarse) < len(fine)
    alpha = np.zeros((4, 4, 4), np.uint8)
    assert image_shape(apply(["encode:jpeg"], {"image": encoded(alpha)})["image"][0])[2] == 3


def test_augment_is_seeded_and_keeps_first_copy() -> None:
    record = {"image": encoded(GRADIENT)}
    text = ["augment:copies=4"]
    copies = [apply(text, record, copy)["image"][0] for copy in range(4)]
    assert copies[0] == record["image"]
    assert len(set(copies)) == 4
    assert copies == [apply(text, record, copy)["image"][0] for copy in range(4)]
    assert copies[1] != apply(text, record, 1, seed=1)["image"][0]
    assert all(image_shape(copy) == (48, 64, 3) for copy in copies)


@pytest.mark.parametrize("option", ["flip=1", "crop=0.3", "rotate=90", "color=1"])
def test_every_augment_option_has_an_effect(option: str) -> None:
    none = {"flip": "0", "crop": "1", "rotate": "0", "color": "0"}
    nothing = ",".join(f"{name}={value}" for name, value in none.items())
    record = {"image": encoded(GRADIENT)}
    same = apply([f"augment:copies=2,{nothing}"], record, 1)["image"][0]
    assert (pixels(same) == GRADIENT).all()
    none[option.split("=")[0]] = option.split("=")[1]
    chosen = ",".join(f"{name}={value}" for name, value in none.items())
    other = pixels(apply([f"augment:copies=2,{chosen}"], record, 1)["image"][0])
    assert other.shape == GRADIENT.shape
    assert (other != GRADIENT).any()
    if option == "flip=1":
        assert (other == GRADIENT[:, ::-1]).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resise:3", "did you mean 'resize'"),
        ("resize", "write the size"),
        ("resize:3x4x5", "write the size"),
        ("resize:0", "a side has 1 to"),
        ("resize:8,fit=round", "one of stretch, crop"),
        ("resize:8,size=3", "unknown option 'size'"),
        ("encode:gif", "encode:jpeg or encode:png"),
        ("encode:jpeg,quality=101", "from 1 to 100"),
        ("augment:copies=x", "copies=x"),
        ("augment:4", "copies=4"),
        ("augment:crop=0", "from 0.01 to 1"),
        ("embed:nowhere.keras", "there is no model 'nowhere.keras'"),
        ("no_such_module:f", "no module 'no_such_module'"),
    ],
)
def test_invalid_transform_raises_user_error(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_chain([text])


def test_resize_without_image_raises_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs the image.*there are: label"):
        write_shards([{"label": 1}] * 4, str(tmp_path / "out"), transforms=["resize:4"])


def records_of(folder: Path, manifest: Manifest, split: str) -> list[dict[str, Any]]:
    found = []
    for shard in manifest.split(split).shards:
        with open(folder / shard.name, "rb") as file:
            found += [decode_example(data) for _, data in read_records(file, shard.bytes)]
    return [{name: values for name, (_, values) in record.items()} for record in found]


def write(source: Path, output: Path, transforms: list[str], **options: Any) -> Any:
    return write_shards(
        str(source),
        str(output),
        policy=POLICY,
        splits=SPLITS,
        transforms=transforms,
        options=WriteOptions(**options),
    )


def test_copies_stay_in_their_split(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_class_folder(classes=2, each=15)  # 29 images: 22 and 7
    texts = ["resize:6", "augment:copies=3"]
    manifest = write(source, tmp_path / "a", texts, processes=2).manifest
    assert [split.num_records for split in manifest.splits] == [66, 7]
    assert manifest.feature("image") == Feature("image", "image", (6, 6, 1))
    train, validation = (
        records_of(tmp_path / "a", manifest, name) for name in ("train", "validation")
    )
    plain = write(source, tmp_path / "b", ["resize:6"]).manifest
    originals = {r["image"][0] for r in records_of(tmp_path / "b", plain, "train")}
    # The first copies are the split's own images; none of them is in the validation split.
    assert sum(r["image"][0] in originals for r in train) == 22
    assert not originals & {r["image"][0] for r in validation}
    assert max(Counter(r["image"][0] for r in train).values()) == 1
    shards = [shard.records for shard in manifest.splits[0].shards]
    assert max(shards) - min(shards) <= 1
    write(source, tmp_path / "c", texts, processes=1)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "c" / path.name).read_bytes()


def test_changed_transform_refuses_resume(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source, output, code = make_class_folder(), tmp_path / "out", tmp_path / "mine.py"
    code.write_text("def f(features):\n    return {**features, 'extra': 1.5}\n")
    first = write(source, output, [f"{code}:f"]).manifest
    assert first.feature("extra") == Feature("extra", "float")
    assert write(source, output, [f"{code}:f"]).written == 0
    with pytest.raises(UserError, match="different transforms"):
        write(source, output, [f"{code}:f", "resize:4"])
    code.write_text("def f(features):\n    return {**features, 'extra': 2.5}\n")
    with pytest.raises(UserError, match="different transforms"):
        write(source, output, [f"{code}:f"])
    assert read_manifest(str(output)) == first
    assert write(source, output, [f"{code}:f"], overwrite=True).written > 0
    assert records_of(output, first, "train")[0]["extra"] == [2.5]


def test_changed_function_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it changed within the same second and kept its size."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    code = tmp_path / "changing.py"
    for value in (1.5, 2.5):
        code.write_text(f"def f(): return {value}\n")
        os.utime(code, (10**9, 10**9))
        assert load_user_object(f"{code}:f", "transform")() == value


def test_user_function_gets_array_and_rng(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "import numpy as np\n"
        "def shade(features, rng):\n"
        "    assert isinstance(features['image'], np.ndarray)\n"
        "    image = features['image'] // 2 + rng.integers(0, 9, dtype=np.uint8)\n"
        "    return {'image': image.astype(np.uint8), 'label': features['label']}\n"
    )
    texts = ["resize:5x4", f"{code}:shade", "encode:jpeg"]
    outputs = [tmp_path / "a", tmp_path / "b"]
    for output, processes in zip(outputs, (1, 2), strict=True):
        manifest = write(make_class_folder(name=output.name), output, texts, processes=processes)
        assert manifest.manifest.feature("image").shape == (5, 4, 1)
    names = sorted(path.name for path in outputs[0].glob("*.tfrecord"))
    for name in names:
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()


def test_raising_user_function_skips_the_record(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source, code = make_class_folder(classes=2, each=10), tmp_path / "mine.py"
    code.write_text(
        "def f(features):\n    if features['label'] and sum(features['image']) % 2: 1 / 0\n"
        "    return features\n"
    )
    odd = [p for p in (source / "class 1").iterdir() if sum(p.read_bytes()) % 2]
    assert odd
    with pytest.raises(JobError, match=r"class 1/\d+\.png: transform .* raises ZeroDivisionError"):
        write(source, tmp_path / "out", [f"{code}:f"], processes=2)
    manifest = write(source, tmp_path / "out", [f"{code}:f"], max_bad_records=10).manifest
    assert manifest.quarantined == len(odd)
    assert sum(split.num_records for split in manifest.splits) == 19 - len(odd)


def test_undecodable_image_is_named(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_class_folder()
    victim = source / "class 0" / "0001.png"
    data = victim.read_bytes()
    # Chunks and checksums of the PNG are sound; the compressed pixels are not.
    start = data.index(b"IDAT")
    (length,) = struct.unpack_from(">I", data, start - 4)
    body = b"IDAT" + bytes(length)
    crc = zlib.crc32(body).to_bytes(4, "big")
    victim.write_bytes(data[:start] + body + crc + data[start + length + 8 :])
    assert write(source, tmp_path / "passed", []).written > 0
    with pytest.raises(JobError, match=r"class 0/0001\.png: it cannot be decoded"):
        write(source, tmp_path / "out", ["resize:8"])


# Saves a model, another one with other weights, and the embeddings by the first of them.
MODELS = """
import sys, keras, numpy as np
first, second, images, expected = sys.argv[1:]
for seed, path in ((3, first), (4, second)):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([
        keras.Input((10, 12, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(4, 3, name="low"),
        keras.layers.GlobalAveragePooling2D(name="pooled"),
        keras.layers.Dense(2),
    ])
    model.save(path)
model = keras.models.load_model(first)
part = keras.Model(model.inputs, model.get_layer("pooled").output)
np.save(expected, part.predict(np.load(images), verbose=0))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_embeddings_equal_layer_outputs(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source, output = make_class_folder(classes=2, each=20), tmp_path / "out"
    files = sorted(source.rglob("*.png"))
    images = [
        Image.open(file).convert("RGB").resize((12, 10), Image.Resampling.BILINEAR)
        for file in files
    ]
    np.save(tmp_path / "images.npy", np.stack([np.asarray(p, np.float32) for p in images]))
    model, other = tmp_path / "backbone.keras", tmp_path / "other.keras"
    paths = [model, other, tmp_path / "images.npy", tmp_path / "expected.npy"]
    subprocess.run([sys.executable, "-c", MODELS, *paths], check=True, capture_output=True)
    command = [
        *module_argv("tenfold", ["write", f"--source={source}"]),
        *("--num_workers=2", "--processes=2", f"--transform=embed:{model}:pooled"),
    ]
    done = subprocess.run(
        [*command, f"--output={output}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(str(output))
    assert manifest.features == (
        Feature("embedding", "float", (4,)),
        Feature("label", "int64"),
    )
    got = sorted((r["label"][0], *r["embedding"]) for r in records_of(output, manifest, "train"))
    labels = [int(file.parent.name.split()[1]) for file in files]
    expected = sorted(
        (label, *row)
        for label, row in zip(labels, np.load(tmp_path / "expected.npy"), strict=True)
    )
    assert np.array(got) == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)
    # New weights and a missing layer are refused.
    other.replace(model)
    again = subprocess.run(
        [*command, f"--output={output}"], capture_output=True, text=True, check=False
    )
    assert (again.returncode, "different transforms" in again.stderr) == (2, True), again.stderr
    command[-1] = f"--transform=embed:{model}:nope"
    wrong = subprocess.run(
        [*command, f"--output={tmp_path / 'x'}"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "no layer 'nope'" in wrong.stderr
    assert "pooled" in wrong.stderr
    assert not os.path.exists(tmp_path / "x")
