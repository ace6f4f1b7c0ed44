"""Tables behind fsspec: one file, a folder of parts, a pattern, and images that rows name."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tenfold.data.errors import UserError
from tenfold.data.sources.base import Source
from tenfold.data.sources.open_source import open_source
from tenfold.data.storage.open_folder import open_folder

Put = Callable[[str, bytes], str]


@pytest.fixture
def put(tmp_path: Path) -> Iterator[Put]:
    """A function that stores a file in memory, and returns the URL of the folder of all."""
    import fsspec

    def call(name: str, data: bytes) -> str:
        url = f"memory://{tmp_path.name}/tables"
        folder, _, last = f"{url}/{name}".rpartition("/")
        open_folder(folder).write(last, data)
        return url

    yield call
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def open_url(url: str, tmp_path: Path) -> Source:
    scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    source = open_source(url, scratch)
    assert not (scratch / "fetched").exists(), "downloads of a scanned table are removed"
    return source


def values(source: Source) -> list[dict[str, object]]:
    return [dict(source.features(index)) for index in range(source.stats.num_examples)]


def test_folder_and_pattern_of_remote_parts_are_one_table(put: Put, tmp_path: Path) -> None:
    for year, value in ((2023, b"1"), (2024, b"2")):
        url = put(f"year={year}/part.csv", b"v\n" + value + b"\n")
    put("_SUCCESS", b"")
    expected = [{"v": 1, "year": 2023}, {"v": 2, "year": 2024}]
    assert values(open_url(url, tmp_path)) == expected
    assert open_url(url, tmp_path).name(1) == f"{url}/year=2024/part.csv: row 0"
    put("train-0.csv", b"v\n3\n")
    put("test-0.csv", b"v\n4\n")
    assert values(open_url(f"{url}/t*-0.csv", tmp_path)) == [{"v": 3}, {"v": 4}]
    splits = open_url(f"{url}/t*-0.csv", tmp_path).splits  # type: ignore[attr-defined]
    assert [split.name for split in splits] == ["train", "test"]


def test_remote_rows_name_remote_images(
    put: Put, tmp_path: Path, make_image: Callable[..., bytes]
) -> None:
    image = make_image(seed=1)
    put("images/a.png", image)
    url = put("t.csv", b"path,label\nimages/a.png,x\n")
    source = open_url(f"{url}/t.csv", tmp_path)
    assert values(source) == [{"image": image, "label": 0}]
    assert source.concurrent_reads > 1  # type: ignore[attr-defined]
    mask = make_image(seed=2)
    put("masks/a.png", mask)
    put("m.csv", b"path,mask\nimages/a.png,masks/a.png\n")
    assert values(open_url(f"{url}/m.csv", tmp_path)) == [{"image": image, "mask": mask}]
    put("w.csv", b"x,link\n1,https://example.com/a.png\n")
    assert values(open_url(f"{url}/w.csv", tmp_path))[0]["link"] == b"https://example.com/a.png"
    put("u.csv", b"path,label\nimages/b.png,x\n")
    with pytest.raises(UserError, match=rf"{url}/u.csv', row 0: there is no image '{url}/images"):
        open_url(f"{url}/u.csv", tmp_path)


def test_remote_table_offers_columns(put: Put, tmp_path: Path) -> None:
    url = put("t.csv", b"v,fold\n5,a\n6,b\n7,a\n")
    source = open_url(f"{url}/t.csv", tmp_path)
    columns = source.columns([2, 0])  # type: ignore[attr-defined]
    assert columns.columns["v"].values.tolist() == [7, 5]
    known = source.feature_values("fold")  # type: ignore[attr-defined]
    assert (list(known.codes), known.values) == ([0, 1, 0], ("a", "b"))
