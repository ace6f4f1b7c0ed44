"""A folder of images with a table of their labels beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import UserError
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.open_source import open_source

NAMES = ("a/1.png", "a/2.png", "b/3.PNG", "b/1.png", "4.png")


@pytest.fixture
def folder(tmp_path: Path, make_image: Callable[..., bytes]) -> Path:
    for number, name in enumerate(NAMES):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_image(seed=number))
    return tmp_path / "images"


def opened(folder: Path, table: str, tmp_path: Path, **options: Any) -> Any:
    (tmp_path / "labels.csv").write_text(table)
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    labels = str(tmp_path / "labels.csv")
    return open_source(str(folder), scratch, SourceOptions(labels=labels, **options))


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("file,label,age\na/1.png,dog,5\n2.png,cat,6\n3.PNG,dog,7\n", {}),
        # Names without folder and suffix need the name of their column.
        ("id,breed,age\na/1,dog,5\n2,cat,6\nb/3,dog,7\n", {"image": "id", "label": "breed"}),
    ],
)
def test_table_gives_labels_by_name(
    table: str, options: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    source = opened(folder, table, tmp_path, **options)
    rows = [source.features(index) for index in range(source.stats.num_examples)]
    assert [(row["label"], row["age"]) for row in rows] == [(1, 5), (0, 6), (1, 7)]
    assert [row["image"] for row in rows] == [(folder / n).read_bytes() for n in NAMES[:3]]
    assert source.stats.label_names == ("cat", "dog")
    assert f"left out, not in {tmp_path}/labels.csv: {folder}/4.png and 1 more" in source.notes


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,label\n9.png,dog\n", r"there is no image '.*images/9\.png'"),
        ("file,label\n1.png,dog\n", "there is no image"),  # two images have this name
        ("x,label\n1,dog\n", "no column names the images of .*--image_feature"),
    ],
)
def test_unknown_images_are_refused(table: str, words: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        opened(folder, table, tmp_path)


def test_labels_need_a_table_and_a_folder_of_images(folder: Path, tmp_path: Path) -> None:
    for labels, source, words in (
        ("gone.csv", folder, "no such file"),
        ("labels.txt", folder, r"a table ends in \.csv"),
        ("gone.csv", tmp_path / "nowhere", "--labels is for a folder of images"),
    ):
        with pytest.raises(UserError, match=words):
            open_source(str(source), tmp_path, SourceOptions(labels=labels))
