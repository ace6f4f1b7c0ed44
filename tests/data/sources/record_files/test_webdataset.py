"""WebDataset tars: records by key, read by offset, and archives that are odd or damaged."""

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.data.errors import UserError
from tenfold.data.sources.base import SourceChanged, SourceOptions, UnusableRecord
from tenfold.data.sources.open_source import open_source
from tenfold.data.sources.record_files.tar_members import expand_braces

MakeImage = Callable[..., bytes]


def write_tar(path: Path, members: Mapping[str, bytes], **kinds: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return path


def opened(spec: Any, tmp_path: Path, **options: Any) -> Any:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return open_source(str(spec), scratch, SourceOptions(**options))


def rows(source: Any) -> list[dict[str, Any]]:
    return [dict(source.features(index)) for index in range(source.stats.num_examples)]


def test_records_are_read_by_key(tmp_path: Path, make_image: MakeImage) -> None:
    image = make_image(seed=1)
    write_tar(
        tmp_path / "a-000.tar",
        {
            "x/1.cls": b"7\n",
            "x/1.PNG": image,
            "./2.cls": b"5",
            "x/1.json": json.dumps({"a": 1.5, "b": {"c": [1, 2]}, "none": None}).encode(),
            "./2.png": image,
            "./2.json": json.dumps({"a": 2.5, "b": {"c": [3, 4]}, "none": None}).encode(),
            "README": b"no record",
            ".hidden": b"no record",
        },
        link=tarfile.SYMTYPE,
        hard=tarfile.LNKTYPE,
    )
    write_tar(
        tmp_path / "a-001.tar",
        {"x/1.png": image, "x/1.cls": b"100", "x/1.json": b'{"a": 0, "b": {"c": [5, 6]}}'},
    )
    source = opened(tmp_path / "a-*.tar", tmp_path)
    expected = [
        {"image": image, "label": 1, "a": 1.5, "b.c": [1, 2]},
        {"image": image, "label": 0, "a": 2.5, "b.c": [3, 4]},
        # A key of another tar is another record.
        {"image": image, "label": 2, "a": 0, "b.c": [5, 6]},
    ]
    assert rows(source) == expected
    assert source.stats.label_names == ("5", "7", "100")
    assert source.name(0) == f"{tmp_path}/a-000.tar: x/1"
    assert source.name(2) == f"{tmp_path}/a-001.tar: x/1"
    assert source.notes[0].endswith("a-000.tar: README and 3 more")
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert [copy.encoded(i) for i in (2, 0)] == [source.encoded(i) for i in (2, 0)]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"cls": b"cat", "txt": "é".encode()}, {"label": 0, "txt": "é"}),
        ({"seg.png": b"I", "png": b"I", "jpg": b"J"}, {"image": b"J", "png": b"I", "seg": b"I"}),
        (
            {"index": b"12", "id": b"x-1", "bin": b"\0\1"},
            {"index": 12, "id": "x-1", "bin": b"\0\1"},
        ),
        ({"json": b"[1, 2]"}, {"json": [1, 2]}),
        ({"meta.json": b'{"label": 3, "t": "x"}'}, {"meta.label": 3, "meta.t": "x"}),
        ({"json": b'{"label": "dog", "t": "x"}'}, {"label": 0, "t": "x"}),
        ({"json": b'{"target": 1.5}'}, {"label": 1.5}),
    ],
)
def test_fields_become_features(
    fields: dict[str, bytes], expected: dict[str, Any], tmp_path: Path
) -> None:
    write_tar(tmp_path / "a.tar", {f"k.{field}": data for field, data in fields.items()})
    assert rows(opened(tmp_path, tmp_path)) == [expected]


def test_arrays_in_tars_are_read_without_pickle(tmp_path: Path) -> None:
    def saved(save: Callable[..., Any], *arrays: Any, **named: Any) -> bytes:
        file = io.BytesIO()
        save(file, *arrays, **named)
        return file.getvalue()

    emb = np.arange(3, dtype=np.float32)
    both = {"k.emb.npy": saved(np.save, emb), "k.npz": saved(np.savez, q=emb + 1)}
    write_tar(tmp_path / "a.tar", both)
    (row,) = rows(opened(tmp_path / "a.tar", tmp_path))
    assert row["emb"].tolist() == [0, 1, 2]
    assert row["q"].tolist() == [1, 2, 3]
    objects = saved(np.save, np.array([{"a": 1}]), allow_pickle=True)
    write_tar(tmp_path / "b.tar", {"k.npy": objects})
    with pytest.raises(UnusableRecord, match=r"no \.npy of numbers"):
        opened(tmp_path / "b.tar", tmp_path).features(0)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("mp3", "is audio: decode it in a function of your own"),
        ("mp4", "is video"),
        ("mat", "is a MATLAB file"),
        ("pkl", "is a pickle, which can run code"),
    ],
)
def test_fields_for_the_users_function_are_refused(field: str, words: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"k.{field}": b"x"})
    with pytest.raises(UserError, match=rf"a\.tar: k\.{field}' {words}.*module:function"):
        opened(tmp_path / "a.tar", tmp_path)


def test_other_image_formats_name_the_remedy(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"k.webp": b"RIFF\0\0\0\0WEBPVP8 "})
    source = opened(tmp_path / "a.tar", tmp_path)
    with pytest.raises(
        UnusableRecord, match=r"'webp'.* WebP: --transform=encode:jpeg converts it"
    ):
        source.encoded(0)
    assert source.features(0)["image"].startswith(b"RIFF")


SOUND = {f"k{n}.txt": b"x" * 700 for n in range(3)}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:1500], "cut or damaged"),  # within the data of a member
        (lambda data: data[:3072], "without the mark of its end"),  # between two members
        (lambda data: data[:1536] + b"#" * 512 + data[2048:], "at byte 1,536 there is no sound"),
        (lambda data: data[:100] + b"#" + data[101:], "it is not a tar file"),
        (lambda data: data + data, "of joined archives give each its file"),
        (lambda data: b"text\n" * 999, "it is not a tar file"),
        (lambda data: b"", "cut or damaged"),
    ],
)
def test_damaged_tar_is_named(spoil: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", SOUND)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=rf"a\.tar.*{words}"):
        opened(path, tmp_path)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a/1.jpg": b"", "a/1.JPG": b""}, r"holds 'a/1\.JPG' twice"),
        ({"README": b"x"}, "1 tar file without a record: members are called KEY"),
        ({f"k.f{n}": b"" for n in range(101)}, "more than 100 different fields"),
    ],
)
def test_unusable_tar_is_refused(members: dict[str, bytes], words: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(UserError, match=words):
        opened(tmp_path / "a.tar", tmp_path)


def test_compressed_tars_and_braces(tmp_path: Path) -> None:
    for number in range(9, 12):
        plain = write_tar(tmp_path / "plain", {"k.txt": str(number).encode()})
        (tmp_path / f"t-{number:03d}.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    found = rows(opened(f"{tmp_path}/t-{{009..011}}.tar.gz", tmp_path))
    assert [row["txt"] for row in found] == ["9", "10", "11"]
    with pytest.raises(UserError, match=r"t-008\.tar\.gz' does not exist \(1 of 4 files"):
        opened(f"{tmp_path}/t-{{008..011}}.tar.gz", tmp_path)


def test_changed_tar_and_broken_record(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.json": b"{", "b.json": b'{"v": 1}'})
    source = opened(path, tmp_path)
    with pytest.raises(UnusableRecord, match="its field 'json' is not JSON"):
        source.encoded(0)
    assert source.encoded(1).label is None
    path.write_bytes(path.read_bytes() + bytes(512))
    with pytest.raises(SourceChanged, match=r"a\.tar has changed"):
        pickle.loads(pickle.dumps(source)).encoded(1)  # noqa: S301


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{x}", ["{x}"]),
    ],
)
def test_braces_expand_as_in_shells(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names
