"""Tables with several columns of paths of images: which they are, and images that are missing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.sources.base import Source, SourceOptions
from tenfold.data.sources.open_source import open_source
from tenfold.data.writing.write_shards import WriteOptions, write_shards

MakeImage = Callable[..., bytes]

IMAGE, MASK = "images/3.png", "masks/3.png"


@pytest.fixture
def folder(tmp_path: Path, make_image: MakeImage) -> Path:
    for number in range(12):
        for kind, height in (("images", 8), ("masks", 4)):
            path = tmp_path / "data" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_image(height=height, seed=number))
    return tmp_path / "data"


def table(folder: Path, columns: str, **more: str) -> str:
    """Return a CSV file with 12 rows of the columns, whose cells have the row's number for #."""
    cells = {"image": "images/#.png", "mask": "masks/#.png", "gone": "gone/#.png", **more}
    rows = [",".join(cells.get(name, "text #") for name in columns.split(","))] * 12
    text = "\n".join(
        [columns, *(row.replace("#", str(number)) for number, row in enumerate(rows))]
    )
    (folder / "t.csv").write_text(text + "\n")
    return str(folder / "t.csv")


def opened(path: str, tmp_path: Path, **options: Any) -> Source:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return open_source(path, scratch, SourceOptions(**options))


def test_every_column_of_existing_images_is_read(folder: Path, tmp_path: Path) -> None:
    source = opened(table(folder, "image,mask,gone,note"), tmp_path)
    assert source.features(7) == {
        "image": (folder / "images/7.png").read_bytes(),
        "mask": (folder / "masks/7.png").read_bytes(),
        "gone": b"gone/7.png",
        "note": b"text 7",
    }
    kinds = {feature.name: (feature.kind, feature.shape) for feature in source.encoded(7).schema}
    assert (kinds["image"], kinds["mask"]) == (("image", (8, 8, 1)), ("image", (4, 8, 1)))
    sizes = [len(source.encoded(index).payload) + 16 for index in range(12)]
    assert (sum(sizes), max(sizes)) == (source.stats.total_bytes, source.stats.max_record_bytes)
    assert source.notes == (
        "column 'image': 12 images",
        "column 'mask': 12 images; --columns=mask:text,* keeps the paths as text",
        "column 'gone' is text: it looks like paths of images, but none of them exists",
    )


@pytest.mark.parametrize(
    ("columns", "options", "features"),
    [
        ("mask,image", {}, {"image": IMAGE, "mask": MASK}),
        ("mask,path", {}, {"image": IMAGE, "mask": MASK}),
        ("mask,photo", {}, {"photo": IMAGE, "mask": MASK}),
        ("mask,photo", {"image": "photo"}, {"image": IMAGE, "mask": MASK}),
        ("mask,photo", {"image": "mask,photo"}, {"image": MASK, "photo": IMAGE}),
        ("photo,note", {}, {"image": IMAGE, "note": "text 3"}),
        ("image,label", {"columns": "image,label"}, {"image": IMAGE, "label": MASK}),
        ("image,mask", {"columns": "mask:text,*"}, {"image": IMAGE, "mask": f"={MASK}"}),
    ],
)
def test_columns_become_features(
    columns: str, options: dict[str, str], features: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    names = {"photo": "images/#.png", "path": "images/#.png", "label": "masks/#.png"}
    source = opened(table(folder, columns, **names), tmp_path, **options)
    expected = {
        name: (folder / value).read_bytes() if (folder / value).exists() else value.encode()
        for name, value in features.items()
    }
    assert source.features(3) == {name: v.removeprefix(b"=") for name, v in expected.items()}


def test_missing_and_broken_images_name_column_and_path(folder: Path, tmp_path: Path) -> None:
    path = table(folder, "image,mask")
    (folder / "masks/0.png").unlink()
    (folder / "masks/5.png").write_bytes(b"no image")
    (folder / "images/6.png").write_bytes((folder / "images/6.png").read_bytes()[:-9])
    (folder / "t.csv").write_text((folder / "t.csv").read_text().replace("masks/9.png", ""))
    policy = LayoutPolicy(num_workers=1)
    with pytest.raises(JobError, match=r"/images/\d.png: column '(image|mask)'"):
        write_shards(path, tmp_path / "out", policy=policy)
    result = write_shards(
        path, tmp_path / "out", options=WriteOptions(policy=policy, max_bad_records=4)
    )
    lines = map(json.loads, (tmp_path / "out/quarantine.jsonl").read_text().splitlines())
    reasons = {Path(line["record"]).name: line["reason"] for line in lines}
    assert sorted(reasons) == ["0.png", "5.png", "6.png", "9.png"]
    assert reasons["0.png"].startswith(f"column 'mask': there is no image '{folder}/masks/0.png'")
    assert reasons["5.png"].startswith(f"column 'mask', {folder}/masks/5.png: it is neither JPEG")
    assert reasons["6.png"].startswith("column 'image': the PNG ")
    assert reasons["9.png"] == "column 'mask': it names no image"
    assert result.notes[1].startswith("column 'mask': 10 images; 2 missing (lines 2, 11); ")
    assert {f.name: f.kind for f in result.manifest.features} == {  # type: ignore[union-attr]
        "image": "image",
        "mask": "image",
    }


def test_unusable_names_of_columns_are_refused(folder: Path, tmp_path: Path) -> None:
    path = table(folder, "image,gone")
    with pytest.raises(UserError, match=r"there is no image '.*column 'gone' names no image at"):
        opened(path, tmp_path, image="image,gone")
    with pytest.raises(UserError, match=r"--image_feature=x: there is no such feature"):
        opened(path, tmp_path, image="image,x")
    with pytest.raises(UserError, match=r"--image_feature=x,y: only a table takes several"):
        open_source([{"x": 1, "y": 2}], tmp_path / "scratch", SourceOptions(image="x,y"))
