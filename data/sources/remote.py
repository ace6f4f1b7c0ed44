"""Sources at a URL, ``gs://bucket/prefix``.

Class folders are listed, and their images read when they are written. Single files (tables,
arrays, TFRecord files) are fetched whole into the scratch folder of the scan, checked, and opened
there.
"""

import hashlib
import posixpath
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.example import Features
from tenfold.data.format.manifest import MANIFEST_NAME
from tenfold.data.format.tfrecord import extend_crc32c
from tenfold.data.runtime.threads import prefetch_map
from tenfold.data.sources.base import Encoded, Source
from tenfold.data.sources.class_folders import Listing, is_image_name, scan_tree
from tenfold.data.sources.features import SourceOptions
from tenfold.data.sources.scanned_files import CONCURRENT_READS, Files, RemoteFiles, version_number
from tenfold.data.sources.table_rows import SUFFIXES as TABLES
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.retry import TransientError, with_retries
from tenfold.data.units import format_size

ARRAYS: Final = (".npz", ".npy")
_FETCHED: Final = "fetched"
_RANGE_BYTES: Final = 10 << 20
_CONCURRENT_RANGES: Final = 8


def open_remote(url: str, scratch: Path, options: SourceOptions) -> Source:
    """Returns the source at `url`, scanned; see `open_source`.

    Raises:
      UserError: there is none, or it cannot be used.
      JobError: the storage could not be reached.
    """
    where, _, part = url.partition(".npz:")
    where = f"{where}.npz" if part else where.rstrip("/")
    parent, _, name = where.rpartition("/")
    if parent.endswith("/"):  # a bare bucket
        return _open_folder(where, scratch)
    if name.lower().endswith(TABLES):
        return _open_table(parent, name, scratch, options)
    if name.endswith(ARRAYS):
        return _open_arrays(parent, name, part, scratch, options)
    if files := _tfrecords(open_folder(parent), name):
        return _open_tfrecords(parent, files, scratch)
    return _open_folder(where, scratch)


def _open_folder(url: str, scratch: Path) -> Source:
    folder = open_folder(url)
    if files := _tfrecords(folder, "*"):
        return _open_tfrecords(url, files, scratch)
    tree = RemoteTree(url)
    if not tree.classes() and not folder.entries():
        _refuse(url)
    return scan_tree(tree, scratch)


def _refuse(url: str) -> None:
    """Raises what to say of a path that has nothing below it."""
    parent, _, name = url.rpartition("/")
    if not parent.endswith("/") and open_folder(parent).entry(name) is not None:
        raise UserError(
            f"source '{url}' is of no known kind: on remote storage a source is a folder of class "
            f"folders, a table ({', '.join(TABLES)}), arrays ({', '.join(ARRAYS)}) or TFRecord "
            "files"
        )
    raise UserError(
        f"source '{url}' does not exist: nothing has a name that begins with it and '/'; "
        "check the path"
    )


def _tfrecords(folder: Folder, pattern: str) -> list[str]:
    """Returns the sorted names in `folder` that match and are those of TFRecord files."""
    if ".tfrecord" not in pattern and not set("*?[") & set(pattern):
        return []
    names = sorted(name for name in folder.entries() if ".tfrecord" in name)
    return [name for name in names if name == pattern or fnmatchcase(name, pattern)]


# --- class folders ---


class RemoteTree:
    """Class folders below the URL `root`; versions are generations, where the storage has them."""

    def __init__(self, root: str) -> None:
        self._folder = open_folder(root)
        self.root = self._folder.path
        self.files: Files = RemoteFiles(root)

    def classes(self) -> list[str]:
        """Returns the sorted names of the class folders."""
        return [name for name in self._folder.folders() if name and name[0] != "."]

    def listed(self, names: Sequence[str]) -> Iterator[Listing]:
        """Yields what lies in each of the class folders `names`, asked for at once."""
        return prefetch_map(self._list, names, max_in_flight=CONCURRENT_READS)

    def strays(self) -> list[bytes]:
        """Returns the images that lie beside the class folders, in none of them."""
        names = sorted(name.encode() for name in self._folder.entries())
        return [name for name in names if is_image_name(name) and name[0] != ord(".")]

    def _list(self, name: str) -> Listing:
        found = Listing()
        for path, entry in self._folder.walk(name):
            if any(part.startswith(".") for part in path.split("/")):
                continue
            if is_image_name(path.encode()):
                found.images.append((path.encode(), entry.bytes, version_number(entry)))
            else:
                found.others.append(path.encode())
        return found


# --- files, fetched ---


class FetchedSource:
    """A source of files that were fetched into the folder `local`, called by their `url`."""

    def __init__(self, source: Source, local: Path, url: str, fingerprint: str = "") -> None:
        self.stats = replace(source.stats, fingerprint=fingerprint or source.stats.fingerprint)
        self.notes = source.notes
        self.reads_at_once = int(getattr(source, "reads_at_once", 1))
        self._source = source
        self._local = str(local)
        self._url = url

    def encoded(self, index: int) -> Encoded:
        """Returns example `index` as it is; raises as `Source.encoded`."""
        return self._source.encoded(index)

    def features(self, index: int) -> Features:
        """Returns example `index` as values; raises as `Source.features`."""
        return self._source.features(index)

    def name(self, index: int) -> str:
        """Returns what to call example `index` in messages."""
        return self._source.name(index).replace(self._local, self._url)


class RemoteImages:
    """The images that a table in the folder at `url` may name: all below that folder."""

    def __init__(self, url: str) -> None:
        self.files: Files = RemoteFiles(url)
        self._folder = open_folder(url)
        self._found: dict[str, tuple[int, int]] | None = None

    def look(self, name: str) -> tuple[bytes, int, int]:
        """Returns full path, bytes and version of an image; the first call lists them all.

        Raises:
          FileNotFoundError: there is none.
        """
        if self._found is None:
            self._found = {
                f"{self._folder.path}/{below}": (entry.bytes, version_number(entry))
                for below, entry in self._folder.walk()
            }
        path = self.path(name)
        if path not in self._found:
            raise FileNotFoundError(path)
        return path.encode(), *self._found[path]

    def path(self, name: str) -> str:
        """Returns the full path that a row means by `name`, a relative path or a URL."""
        if "://" in name:
            return name
        return f"{self._folder.path}/{posixpath.normpath(name)}"


def _open_table(parent: str, name: str, scratch: Path, options: SourceOptions) -> Source:
    from tenfold.data.sources.tables import scan_table

    folder = open_folder(parent)
    local, _ = _fetch_all(folder, [name], scratch)
    with _called(local, folder.path):
        images = RemoteImages(parent)
        source = scan_table(str(local / name), scratch, options, images)
    return FetchedSource(source, local, folder.path)


def _open_arrays(
    parent: str, name: str, part: str, scratch: Path, options: SourceOptions
) -> Source:
    from tenfold.data.sources.arrays import scan_arrays

    folder = open_folder(parent)
    local, digest = _fetch_all(folder, [name], scratch)
    path = f"{local / name}:{part}" if part else str(local / name)
    with _called(local, folder.path):
        source = scan_arrays(path, path, scratch, options)
    return FetchedSource(source, local, folder.path, f"arrays-{digest}{part and ':'}{part}")


def _open_tfrecords(url: str, names: list[str], scratch: Path) -> Source:
    from tenfold.data.sources.tfrecords import known_from_manifest, scan_tfrecords

    folder = open_folder(url)
    also = [MANIFEST_NAME] if folder.entry(MANIFEST_NAME) else []
    local, digest = _fetch_all(folder, names + also, scratch)
    with _called(local, folder.path):
        known, label_names = known_from_manifest(str(local))
        files = [str(local / name) for name in names]
        source = scan_tfrecords(files, scratch, known=known, label_names=label_names)
    return FetchedSource(source, local, folder.path, f"tfrecords-{digest}")


@contextmanager
def _called(local: Path, url: str) -> Iterator[None]:
    """Names what was fetched by its URL in the errors that are raised."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(local), url)) from error


def _fetch_all(folder: Folder, names: Sequence[str], scratch: Path) -> tuple[Path, str]:
    """Returns the local folder of copies of the files `names`, and a digest of what they hold.

    Raises:
      UserError: one does not exist; there is no room for them.
      JobError: the storage could not be read.
    """
    local = scratch / _FETCHED
    local.mkdir()
    _check_room(folder, names, local)
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        crc32c = _fetch(folder, name, local / name)
        digest.update(f"{name}\0{(local / name).stat().st_size}\0{crc32c:08x}\0".encode())
    return local, digest.hexdigest()


def _check_room(folder: Folder, names: Sequence[str], local: Path) -> None:
    found = folder.entries() if len(names) > 1 else {names[0]: folder.entry(names[0])}
    for name in names:
        if found.get(name) is None:
            raise UserError(f"source '{folder.path}/{name}' does not exist: check the path")
    needed = sum(entry.bytes for name in names if (entry := found[name]))
    free = shutil.disk_usage(local).free
    if needed > free:
        raise UserError(
            f"source '{folder.path}/{names[0]}' and the like take {format_size(needed)}, and "
            f"'{local.parent.parent}', where they are fetched to, has {format_size(free)} free: "
            "name a larger disk in TMPDIR"
        )


def _fetch(folder: Folder, name: str, target: Path) -> int:
    """Copies a remote file to a local one; returns its CRC32C, the storage's own if it has any."""

    def once() -> int:
        entry = folder.entry(name)
        if entry is None:
            raise FileNotFoundError("it has gone")
        read = partial(_read_range, folder, name, entry.bytes)
        crc32c = size = 0
        with open(target, "wb") as file:
            offsets = range(0, entry.bytes, _RANGE_BYTES)
            for part in prefetch_map(read, offsets, max_in_flight=_CONCURRENT_RANGES):
                file.write(part)
                crc32c = extend_crc32c(crc32c, part)
                size += len(part)
        if size != entry.bytes or entry.crc32c not in (None, crc32c):
            raise TransientError("what was fetched is not what the storage has (size, CRC32C)")
        return crc32c

    try:
        return with_retries(once, what=f"{folder.path}/{name}")
    except OSError as error:
        raise JobError(f"{folder.path}/{name} could not be fetched: {error}") from error


def _read_range(folder: Folder, name: str, size: int, offset: int) -> bytes:
    return folder.read_range(name, offset, min(_RANGE_BYTES, size - offset))
