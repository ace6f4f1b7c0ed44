"""Folders of images beside folders of masks: pairs, splits, and files without partner."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.open_source import open_source
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.writing.write_shards import WriteOptions, write_shards

MakeImage = Callable[..., bytes]


@pytest.fixture
def make_tree(tmp_path: Path, make_image: MakeImage) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        for number, name in enumerate(names):
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_image(seed=number))
        return tmp_path / "data"

    return make


def opened(root: Any, tmp_path: Path, **options: Any) -> Any:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return open_source(str(root), scratch, SourceOptions(**options))


@pytest.mark.parametrize(
    ("folders", "features"),
    [
        ("images,masks", "image,mask"),
        ("Images,Mask", "image,mask"),
        ("img,annotations,depth", "image,annotations,depth"),
        ("JPEGImages,SegmentationClass,notes", "image,SegmentationClass"),
    ],
)
def test_files_of_one_name_are_one_record(
    folders: str, features: str, make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["a/1", "a/2", "3"]
    root = make_tree(*(f"{folder}/{name}.png" for folder in folders.split(",") for name in names))
    (root / folders.split(",")[1] / "classes.txt").write_text("x")
    source = pickle.loads(pickle.dumps(opened(root, tmp_path)))  # noqa: S301 - our own pickle
    used = folders.split(",")[: len(features.split(","))]
    for index, name in enumerate(sorted(names)):
        paths = [root / folder / f"{name}.png" for folder in used]
        assert source.name(index) == str(paths[0])
        expected = dict(zip(features.split(","), (p.read_bytes() for p in paths), strict=True))
        assert source.features(index) == expected
        assert [f.name for f in source.encoded(index).schema] == sorted(expected)
    sizes = [len(source.encoded(index).payload) + 16 for index in range(3)]
    assert (sum(sizes), max(sizes)) == (source.stats.total_bytes, source.stats.max_record_bytes)
    assert source.notes[1] == f"folder '{used[1]}': 3 images, stored as '{features.split(',')[1]}'"
    assert f"ignored files: {root}/{used[1]}/classes.txt" in source.notes
    with pytest.raises(UserError, match="--missing: only a table takes this"):
        opened(root, tmp_path, missing="drop")


@pytest.mark.parametrize("pattern", ["{folder}/{split}", "{split}/{folder}"])
def test_splits_are_found_above_and_below(
    pattern: str, make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    splits = {"train": 3, "val": 2, "test": 1}
    for split, count in splits.items():
        for folder in ("images", "masks"):
            place = pattern.format(folder=folder, split=split)
            root = make_tree(*(f"{place}/{number}.png" for number in range(count)))
    source = opened(root, tmp_path)
    found = {split.name: split.examples for split in source.splits}
    assert found == {"train": 3, "validation": 2, "test": 1}
    assert source.name(4) == f"{root}/{pattern.format(folder='images', split='val')}/1.png"
    assert set(source.features(4)) == {"image", "mask"}
    make_tree(f"{pattern.format(folder='images', split='extra')}/1.png")
    with pytest.raises(UserError, match="are splits"):
        opened(root, tmp_path)


def test_files_without_partner_are_broken_records(
    make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    pairs = [f"{folder}/{number}.png" for number in range(6) for folder in ("images", "masks")]
    root = make_tree(*pairs, "images/7.png", "images/8.png", "masks/9.png")
    policy = LayoutPolicy(num_workers=1)
    with pytest.raises(JobError, match=r"/\d\.png: folder '(masks|images)' has no image of the"):
        write_shards(str(root), tmp_path / "out", policy=policy)
    options = WriteOptions(policy=policy, max_bad_records=3)
    result = write_shards(str(root), tmp_path / "out", options=options)
    assert "3 files of 9 without partner" in result.notes
    lines = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    reasons = {line["record"]: line["reason"] for line in map(json.loads, lines)}
    lacks = "folder '{}' has no image of the same name without suffix ({} without partner)"
    assert reasons == {
        f"{root}/images/7.png": lacks.format("masks", "2 files"),
        f"{root}/images/8.png": lacks.format("masks", "2 files"),
        f"{root}/masks/9.png": lacks.format("images", "1 file"),
    }


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["images/1.png", "masks/1_mask.png"], "2 of 2 files in 'images' and 'masks' have no"),
        (["images/1.png", "images/1.jpg", "masks/1.png"], "differ only in their suffix"),
        (["images/1.png", "masks/1.tif"], "look like images and what belongs to each"),
        (["images/1.png", "photos/1.png", "masks/1.png"], "look like images and what belongs"),
    ],
)
def test_folders_that_are_no_pairs_are_refused(
    names: list[str], words: str, make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_tree(*names)
    with pytest.raises(UserError, match=words):
        opened(root, tmp_path)


def test_remote_folders_are_pairs(tmp_path: Path, make_image: MakeImage) -> None:
    import fsspec

    url, mask = f"memory://{tmp_path.name}/pairs", make_image(seed=5)
    open_folder(f"{url}/images").write("1.jpg", make_image(form="JPEG"))
    open_folder(f"{url}/masks").write("1.png", mask)
    source = opened(url, tmp_path)
    assert source.features(0)["mask"] == mask
    assert source.name(0) == f"{url}/images/1.jpg"
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
