"""Source files that change between the scan and the reading of a record."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tenfold.data.format.example import encode_example
from tenfold.data.format.tfrecord import frame
from tenfold.data.sources.base import SourceChanged, UnusableRecord
from tenfold.data.sources.open_source import open_source

MakeFolder = Callable[..., Path]


def class_folder(tmp_path: Path, make_class_folder: MakeFolder) -> tuple[Path, Path]:
    root = make_class_folder(classes=1, each=3)
    return root, root / "class 0" / "0000.png"


def tfrecords(tmp_path: Path, make_class_folder: MakeFolder) -> tuple[Path, Path]:
    file = tmp_path / "records" / "a.tfrecord"
    file.parent.mkdir()
    file.write_bytes(frame(encode_example({"label": 1})))
    return file.parent, file


@pytest.mark.parametrize("make", [class_folder, tfrecords])
def test_changed_source_file_is_reported(
    make: Callable[[Path, MakeFolder], tuple[Path, Path]],
    tmp_path: Path,
    make_class_folder: MakeFolder,
) -> None:
    root, file = make(tmp_path, make_class_folder)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    pickled = pickle.dumps(open_source(str(root), scratch))

    def read() -> None:
        """Read the first record like a writing process that has just received the source."""
        pickle.loads(pickled).encoded(0)  # noqa: S301

    read()
    whole = file.read_bytes()
    file.unlink()
    with pytest.raises(SourceChanged, match=f"{file.name} has gone since the source was scanned"):
        read()
    file.mkdir()
    with pytest.raises(UnusableRecord, match=r"^it cannot be read \(Is a directory\)$"):
        read()
    file.rmdir()
    file.write_bytes(b"another" + whole)
    with pytest.raises(SourceChanged, match=f"{file.name} has changed since the source"):
        read()
