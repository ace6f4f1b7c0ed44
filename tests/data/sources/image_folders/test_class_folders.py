"""Folders of images: classes given or none, pairs that are no classes, and other formats."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.example import decode_example
from tenfold.data.format.manifest import Feature, Manifest
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.open_source import open_source
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.write_shards import WriteResult, write_shards

MakeImage = Callable[..., bytes]


def tree(root: Path, make_image: MakeImage, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_image(seed=number))
    return root


def labels(root: Path, tmp_path: Path, **options: Any) -> dict[str, Any]:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    source = open_source(str(root), scratch, SourceOptions(**options))
    count = source.stats.num_examples
    assert sum(len(source.encoded(i).payload) + 16 for i in range(count)) == (
        source.stats.total_bytes
    )
    for index in range(count):
        values = {n: v[1][0] for n, v in decode_example(source.encoded(index).payload).items()}
        assert values == source.features(index)
    return {source.name(i).removeprefix(f"{root}/"): source.encoded(i).label for i in range(count)}


def test_given_classes_set_the_order(tmp_path: Path, make_image: MakeImage) -> None:
    root = tree(tmp_path / "a", make_image, "cat/1.png", "dog/2.png")
    assert labels(root, tmp_path) == {"cat/1.png": 0, "dog/2.png": 1}
    classes = ("dog", "emu", "cat")
    assert labels(root, tmp_path, classes=classes) == {"cat/1.png": 2, "dog/2.png": 0}
    manifest = write_shards(
        str(root), tmp_path / "out", source_options=SourceOptions(classes=classes),
        policy=LayoutPolicy(num_workers=1),
    ).manifest  # fmt: skip
    assert manifest is not None
    assert manifest.label_names == classes
    assert manifest.splits[0].label_counts == (1, 0, 1)
    with pytest.raises(UserError, match=r"a/dog': label 'dog' is not among .*add it to the 2"):
        labels(root, tmp_path, classes=("cat", "emu"))
    with pytest.raises(UserError, match="did you mean 'dogs'"):
        labels(root, tmp_path, classes=("cat", "dogs"))


def test_images_without_classes_have_no_label(tmp_path: Path, make_image: MakeImage) -> None:
    root = tree(tmp_path / "a", make_image, "2.png", "1.PNG", ".hidden.png")
    (root / "notes.txt").write_text("x")
    assert labels(root, tmp_path) == {"1.PNG": None, "2.png": None}
    result = write_shards(str(root), tmp_path / "out", policy=LayoutPolicy(num_workers=1))
    assert result.manifest is not None
    assert result.manifest.features == (Feature("image", "image", (8, 8, 1)),)
    assert result.notes == (
        "no class folders: the images have no label; --labels=FILE.csv gives them",
    )
    deep = tree(tmp_path / "b", make_image, "2024/1.png", "2025/05/2.png", "3.png")
    found = labels(deep, tmp_path, classes=())
    assert found == {"2024/1.png": None, "2025/05/2.png": None, "3.png": None}


@pytest.mark.parametrize(
    "folders", [("images", "masks"), ("Images", "labels", "x"), ("img", "gt")]
)
def test_images_beside_masks_are_no_classes(
    folders: tuple[str, ...], tmp_path: Path, make_image: MakeImage
) -> None:
    names = [f"{folders[0]}/1.png", *(f"{folder}/1.txt" for folder in folders[1:])]
    root = tree(tmp_path / "a", make_image, *names)
    words = rf"'{folders[0]}' and '{folders[1]}' look like images and .* --source={root}/"
    with pytest.raises(UserError, match=words + f"{folders[0]} for the images alone"):
        labels(root, tmp_path)
    assert labels(root / folders[0], tmp_path) == {"1.png": None}
    root = tree(tmp_path / "b", make_image, *(f"{folder}/1.png" for folder in folders))
    assert len(labels(root, tmp_path, classes=tuple(sorted(folders)))) == len(folders)


def test_masks_alone_and_other_names_are_classes(tmp_path: Path, make_image: MakeImage) -> None:
    root = tree(tmp_path / "a", make_image, "masks/1.png", "helmets/1.png")
    assert set(labels(root, tmp_path).values()) == {0, 1}


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


GREY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
COLOUR = Image.merge("RGB", (GREY, GREY.rotate(90), GREY.rotate(180)))
CLEAR = Image.merge("RGBA", (*COLOUR.split(), GREY))
DEEP = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024)
FORMATS: dict[str, tuple[bytes, str]] = {
    "a.bmp": (encoded(COLOUR, "BMP"), ""),
    "b.gif": (
        encoded(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90)]),
        "GIF: the first of several frames",
    ),
    "c.tif": (encoded(COLOUR.convert("CMYK"), "TIFF"), "CMYK became RGB"),
    "d.tiff": (encoded(DEEP, "TIFF"), "16 bits a channel became 8"),
    "e.webp": (encoded(COLOUR, "WEBP", lossless=True), ""),
    "f.png": (encoded(CLEAR, "PNG"), "transparency was dropped"),
    "g.gif": (encoded(COLOUR.quantize(8), "GIF"), ""),
    "h.ppm": (encoded(COLOUR, "PPM"), ""),
    "i.jpg": (encoded(COLOUR, "JPEG"), ""),
}


@pytest.fixture
def formats(tmp_path: Path) -> Path:
    (tmp_path / "many" / "x").mkdir(parents=True)
    for name, (data, _) in FORMATS.items():
        (tmp_path / "many" / "x" / name).write_bytes(data)
    return tmp_path / "many"


def written(source: Path, output: Path, *transforms: str) -> tuple[WriteResult, Manifest]:
    result = write_shards(
        str(source), output, transforms=transforms, policy=LayoutPolicy(num_workers=1)
    )
    assert result.manifest == read_manifest(str(output))
    assert result.manifest is not None
    return result, result.manifest


def test_every_format_is_encoded_and_its_losses_told(formats: Path, tmp_path: Path) -> None:
    result, manifest = written(formats, tmp_path / "jpeg", "encode:jpeg")
    assert manifest.splits[0].num_records == len(FORMATS)
    losses = [loss for _, loss in FORMATS.values() if loss]
    assert set(result.notes) == {f"1 image: {loss}" for loss in losses}
    assert manifest.notes == result.notes
    result, manifest = written(formats, tmp_path / "png", "encode:png")
    assert not any("transparency" in note for note in result.notes)
    assert manifest.splits[0].num_records == len(FORMATS)


def test_other_formats_name_the_way_out(formats: Path, tmp_path: Path) -> None:
    result, manifest = written(formats, tmp_path / "out")
    assert manifest.splits[0].num_records == 2
    assert result.notes == (
        f"left out, images of other formats: {formats}/x/a.bmp and 6 more; "
        "--transform=encode:jpeg writes them too",
    )
    for name in ("f.png", "i.jpg"):
        (formats / "x" / name).unlink()
    with pytest.raises(UserError, match="of another format, which --transform=encode:jpeg takes"):
        written(formats, tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(20), "pillow-heif|cannot be decoded"),
        ("a.webp", b"RIFF\0\0\0\0WEBPnonsense", "cannot be decoded"),
        ("a.tiff", encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "are floats"),
        (
            "a.tiff",
            encoded(Image.fromarray(np.full((4, 4), 10**6, np.int32)), "TIFF"),
            "from 1000000 to 1000000, beyond 16 bits",
        ),
        ("a.gif", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not among those"),
    ],
)
def test_undecodable_image_is_a_broken_record(
    name: str, data: bytes, words: str, tmp_path: Path, make_image: MakeImage
) -> None:
    root = tree(tmp_path / "a", make_image, "x/1.png")
    (root / "x" / name).write_bytes(data)
    with pytest.raises(JobError, match=rf"x/{name}: .*({words})"):
        written(root, tmp_path / "out", "encode:png")
