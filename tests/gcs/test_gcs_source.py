"""Sources at gs:// give the same shards as the same files on a local disk."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import parse_shard_name
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.sources.base import SourceChanged
from tenfold.data.sources.open_source import open_source
from tenfold.data.writing.write_shards import WriteOptions, write_shards

FAULTS = ("503=0.1", "429=0.05", "cut=0.05", "flip=0.03", "shorten=0.03")
POLICY = LayoutPolicy(num_workers=2, shards_per_worker=2, min_shard_bytes=100)


def _upload(folder: Path, bucket: Any, prefix: str) -> str:
    """Copy all files of a folder to the bucket; return their URL."""
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.write(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"{bucket.url}/{prefix}"


def _write(source: str, output: Path, *, processes: int = 1, **how: Any) -> dict[str, bytes]:
    """Write shards, and return their bytes by name."""
    write_shards(
        source, str(output), policy=POLICY, options=WriteOptions(processes=processes), **how
    )
    found = {path.name: path.read_bytes() for path in output.glob("*.tfrecord")}
    assert len(found) >= 2
    return found


def _manifest(output: Path) -> dict[str, Any]:
    """Return the manifest without the fingerprint of its source."""
    manifest = json.loads((output / "manifest.json").read_text())
    return {name: value for name, value in manifest.items() if "fingerprint" not in name}


@pytest.fixture
def tree(make_class_folder: Callable[..., Path], make_image: Callable[..., bytes]) -> Path:
    """A tree with files to ignore, and classes in another order than the objects' names."""
    root = make_class_folder(classes=3, each=11)
    for name in ("cats/deep/1.png", "cats-2/1.png", "é t/2.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(make_image(seed=len(name)))
    for name in ("stray.png", ".hidden/1.png", "cats/.hidden.png", "cats/notes.txt", "top.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"no image")
    return root


@pytest.mark.timeout(120)
@pytest.mark.parametrize("processes", [1, 3])
def test_class_folders_give_same_shards(
    bucket: Any, tree: Path, tmp_path: Path, processes: int
) -> None:
    bucket.write("a/tree/cats/", b"")  # the marker of a folder that consoles create
    url = _upload(tree, bucket, "a/tree")
    here, there = tmp_path / "here", tmp_path / "there"
    assert _write(url, there, processes=processes) == _write(str(tree), here)
    assert _manifest(there) == _manifest(here)
    local, remote = open_source(str(tree), _new(tmp_path)), open_source(url, _new(tmp_path))
    assert remote.notes == tuple(note.replace(str(tree), url) for note in local.notes) != ()
    assert remote.name(3) == local.name(3).replace(str(tree), url)


def _new(folder: Path) -> Path:
    made = folder / f"scratch-{len(list(folder.iterdir()))}"
    made.mkdir()
    return made


@pytest.mark.timeout(120)
def test_transforms_give_same_shards(bucket: Any, tree: Path, tmp_path: Path) -> None:
    url = _upload(tree, bucket, "tree")
    how: dict[str, Any] = {"transforms": ("resize:5",)}
    assert _write(url, tmp_path / "there", **how) == _write(str(tree), tmp_path / "here", **how)


@pytest.mark.timeout(200)
def test_source_survives_faulty_network(
    bucket: Any, faulty: Callable[..., Any], tree: Path, tmp_path: Path
) -> None:
    url = _upload(tree, bucket, "tree")
    proxy = faulty(*FAULTS)
    assert _write(url, tmp_path / "there") == _write(str(tree), tmp_path / "here")
    struck = proxy.struck()
    assert sum(struck.values()) >= 5, struck


def test_changed_image_raises_source_changed(bucket: Any, tree: Path, tmp_path: Path) -> None:
    url = _upload(tree, bucket, "tree")
    source = open_source(url, _new(tmp_path))
    name = source.name(0).removeprefix(f"{bucket.url}/")
    data = source.features(0)["image"]
    bucket.write(name, data)  # the same bytes, but another generation
    with pytest.raises(SourceChanged, match=f"{name} has changed or gone"):
        source.encoded(0)
    assert open_source(url, _new(tmp_path)).stats.fingerprint != source.stats.fingerprint
    bucket.remove(name)
    with pytest.raises(SourceChanged, match="has changed or gone"):
        source.encoded(0)
    assert source.features(1)["image"]


def test_write_ends_at_changed_image(bucket: Any, tree: Path, tmp_path: Path) -> None:
    url = _upload(tree, bucket, "tree")

    def change(plan: Any) -> None:
        bucket.write("tree/cats-2/1.png", b"another")

    with pytest.raises(JobError, match=r"tree/cats-2/1.png has changed or gone"):
        write_shards(url, str(tmp_path / "out"), policy=POLICY, on_plan=change)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.fixture
def files(tmp_path: Path, tree: Path) -> Path:
    """A folder with one file of every kind of source."""
    folder = tmp_path / "files"
    shutil.copytree(tree, folder / "images")
    images = sorted(str(p.relative_to(folder)) for p in folder.rglob("images/cats*/*.png"))
    images = [name for name in images if "/." not in name]
    images += sorted(str(p.relative_to(folder)) for p in folder.rglob("images/class*/*.png"))
    rows = [{"path": name, "label": name.split("/")[1], "age": len(name)} for name in images]
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "plain.jsonl").write_text(
        "".join(json.dumps({"text": "x" * n, "label": n % 3}) + "\n" for n in range(40))
    )
    arrays = {"x": np.arange(400).reshape(40, 10), "y": np.arange(40) % 4}
    np.savez(folder / "arrays.npz", x_train=arrays["x"], y_train=arrays["y"])
    np.save(folder / "array.npy", arrays["x"])
    _write(str(folder / "array.npy"), folder / "records")
    return folder


KINDS = (
    "table.csv", "plain.jsonl", "arrays.npz:train", "array.npy", "records", "records/*.tfrecord"
)  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_single_files_give_same_shards_and_resume(
    bucket: Any, files: Path, tmp_path: Path, kind: str
) -> None:
    url = _upload(files, bucket, "b")
    here, there = tmp_path / "here", tmp_path / "there"
    shards = _write(f"{files}/{kind}", here)
    assert _write(f"{url}/{kind}", there, processes=2) == shards
    assert _manifest(there) == _manifest(here)
    again = write_shards(f"{url}/{kind}", str(there), policy=POLICY)
    assert (again.written, again.kept) == (0, len(shards))
    source = open_source(f"{url}/{kind}", _new(tmp_path))
    assert source.name(0).startswith(f"{url}/")
    bucket.write("b/plain.jsonl", b'{"text": "other"}\n')
    bucket.write("b/array.npy", files.joinpath("array.npy").read_bytes()[:-8] + b"12345678")
    changed = open_source(f"{url}/{kind}", _new(tmp_path)).stats.fingerprint
    assert (changed != source.stats.fingerprint) == (kind in ("plain.jsonl", "array.npy"))


@pytest.mark.timeout(120)
def test_download_survives_faulty_network(
    bucket: Any, faulty: Callable[..., Any], files: Path, tmp_path: Path
) -> None:
    data = np.arange(2_800_000).reshape(40, -1)  # 22 MB, in three ranges
    np.save(files / "large.npy", data)
    url = _upload(files, bucket, "b")
    proxy = faulty("503=0.3", "cut=0.1", "flip=0.1")
    source = open_source(f"{url}/large.npy", _new(tmp_path))
    assert np.array_equal(source.features(39)["x"], data[39])
    assert sum(proxy.struck().values()) >= 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "'gs://BUCKET/nothing' does not exist: there is no file of this name"),
        ("b/none.csv", "'gs://BUCKET/b/none.csv' does not exist: check the path"),
        ("b/none.npz:train", "'gs://BUCKET/b/none.npz' does not exist: check the path"),
        ("b/notes.zip", "'gs://BUCKET/b/notes.zip' is of an unknown kind"),
        ("b/bad.jsonl", "'gs://BUCKET/b/bad.jsonl', line 1: not JSON"),
        ("b/bad.csv", "there is no image 'gs://BUCKET/b/gone.png'"),
        ("b/text", "class folder 'gs://BUCKET/b/text/cats' has no images"),
    ],
)
def test_unusable_url_is_one_line(bucket: Any, tmp_path: Path, path: str, message: str) -> None:
    for name in ("b/notes.zip", "b/bad.jsonl", "b/text/cats/1.txt"):
        bucket.write(name, b"no")
    bucket.write("b/bad.csv", b"path,label\ngone.png,1\n")
    with pytest.raises(UserError) as error:
        open_source(f"{bucket.url}/{path}", tmp_path)
    assert message.replace("BUCKET", bucket.name) in str(error.value)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_download_without_room_is_refused(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("b/x.npy", bytes(2000))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1999))
    with pytest.raises(UserError, match=r"needs 2 KB, but .* has 2 KB free: set TMPDIR"):
        open_source(f"{bucket.url}/b/x.npy", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.timeout(120)
def test_cli_writes_from_bucket_to_bucket(
    bucket: Any, tenfold: Callable[..., Any], tree: Path, tmp_path: Path
) -> None:
    url = _upload(tree, bucket, "tree")
    flags = ["--num_workers=2", "--shards_per_worker=2", "--min_shard_size=100B"]
    done = tenfold("write", f"--source={url}", f"--output={bucket.url}/out", *flags)
    assert done.status == 0, done.err
    assert (
        f"ignored, not a .jpg, .jpeg, .png file in a class folder: {url}/" in done.out + done.err
    )
    names = [name.removeprefix("out/") for name in bucket.names("out/")]
    shards = {name: bucket.read(f"out/{name}") for name in names if parse_shard_name(name)}
    assert shards == _write(str(tree), tmp_path / "here")
    done = tenfold("plan", f"--source={url}", "--num_workers=2")
    assert done.status == 0, done.err
    done = tenfold("write", "--source=gs://no-such-bucket/tree", f"--output={tmp_path}/none")
    assert done.status == 2
    assert done.err.startswith("tenfold: there is no bucket 'no-such-bucket'"), done.err
    assert "Traceback" not in done.err
