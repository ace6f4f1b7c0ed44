"""Sources at a URL, ``gs://bucket/prefix``.

Class folders are listed, and each image is read when its record is written. Single files (tables,
arrays, TFRecord files) are downloaded into the scratch folder of the scan, checked, and opened
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
from typing import TYPE_CHECKING, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.example import Features
from tenfold.data.format.manifest import MANIFEST_NAME
from tenfold.data.format.tfrecord import extend_crc32c
from tenfold.data.planning.splits.own_splits import FeatureValues
from tenfold.data.planning.splits.split_names import split_folders, usual_split
from tenfold.data.runtime.threads import prefetch_map
from tenfold.data.sources.base import Encoded, Source, SourceOptions
from tenfold.data.sources.image_folders.class_folders import scan_tree
from tenfold.data.sources.image_folders.image_tree import is_image_name
from tenfold.data.sources.image_folders.list_folders import Listing
from tenfold.data.sources.record_files.tar_members import TARS, expand_braces, is_tar_name
from tenfold.data.sources.scanned_files import CONCURRENT_READS, Files, RemoteFiles, version_number
from tenfold.data.sources.split_sources import join_splits
from tenfold.data.sources.tables.open_table import scan_files
from tenfold.data.sources.tables.paired_folders import scan_pairs
from tenfold.data.sources.tables.table_files import (
    TABLES,
    is_partition,
    table_files,
    table_format,
    table_parts,
)
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.retry import TransientError, with_retries
from tenfold.data.units import format_size, plural

if TYPE_CHECKING:
    from tenfold.data.format.columns import Columns

ARRAYS: Final = (".npz", ".npy")
_FETCHED_FOLDER: Final = "fetched"
_RANGE_BYTES: Final = 10 << 20
_CONCURRENT_RANGES: Final = 8


def open_remote(url: str, scratch: Path, options: SourceOptions) -> Source:
    """Scan the source at `url` and return it; see `open_source`.

    Raises:
      UserError: there is no such source, or it cannot be used.
      JobError: the storage could not be reached.
    """
    path, _, suffix = url.partition(".npz:")
    path = f"{path}.npz" if suffix else path.rstrip("/")
    parent, _, name = path.rpartition("/")
    if parent.endswith("/"):  # only a bucket
        return _open_folder(path, scratch, options)
    folder = open_folder(parent)
    if names := _tables(folder, name):
        return _open_table(parent, names, scratch, options)
    if name.endswith(ARRAYS):
        return _open_arrays(parent, name, suffix, scratch, options)
    if files := _tfrecords(folder, name):
        return _open_tfrecords(parent, files, scratch, options)
    if tars := _tars(folder, name):
        return _open_tars(parent, tars, scratch, options)
    return _open_folder(path, scratch, options)


def _open_folder(url: str, scratch: Path, options: SourceOptions) -> Source:
    folder = open_folder(url)
    if files := _tfrecords(folder, "*"):
        return _open_tfrecords(url, files, scratch, options)
    if tars := _tars(folder, "*"):
        return _open_tars(url, tars, scratch, options)
    if names := _table_parts(folder):
        return _open_table(url, names, scratch, options)
    tree = RemoteTree(url, any_image=options.any_image)
    if found := split_folders(url, tree.classes()):
        specs = {split: f"{url}/{name}" for split, name in found.items()}
        return join_splits(specs, scratch, lambda spec, part: open_remote(spec, part, options))
    if not tree.classes() and not folder.entries():
        raise _unknown_source(url)
    return scan_pairs(tree, scratch, options) or scan_tree(tree, scratch, options)


def _unknown_source(url: str) -> UserError:
    """Return the error for a path without anything below it: a file, or nothing at all."""
    parent, _, name = url.rpartition("/")
    if not parent.endswith("/") and open_folder(parent).entry(name) is not None:
        return UserError(
            f"source '{url}' is of an unknown kind: on remote storage a source is a folder of "
            f"class folders, a table ({', '.join(TABLES)}), arrays ({', '.join(ARRAYS)}), "
            f"TFRecord files or tars ({', '.join(TARS)})"
        )
    return UserError(
        f"source '{url}' does not exist: there is no file of this name and none below it; "
        "check the path"
    )


def _tfrecords(folder: Folder, pattern: str) -> list[str]:
    """Return the names in `folder` that match and are names of TFRecord files, sorted."""
    if ".tfrecord" not in pattern and not set("*?[") & set(pattern):
        return []
    names = sorted(name for name in folder.entries() if ".tfrecord" in name)
    return [name for name in names if name == pattern or fnmatchcase(name, pattern)]


def _tars(folder: Folder, pattern: str) -> list[str]:
    """Return the names in `folder` of tar files that match a pattern, with or without braces."""
    if not is_tar_name(pattern.replace("*", TARS[0])):
        return []
    names = sorted(name for name in folder.entries() if is_tar_name(name))
    wanted = expand_braces(pattern)
    return [name for part in wanted for name in names if name == part or fnmatchcase(name, part)]


def _tables(folder: Folder, pattern: str) -> list[str]:
    """Return the names in `folder` that match and are names of tables, sorted."""
    if not set("*?[") & set(pattern):
        return [pattern] if table_format(pattern) else []
    return table_parts(name for name in folder.entries() if fnmatchcase(name, pattern))


def _table_parts(folder: Folder) -> list[str]:
    """Return the paths of a table's parts below `folder`; [] if it has images.

    A tree is listed only if its top has parts of a table, or folders of parts.
    """
    top = folder.folders()
    if not table_parts(folder.entries()) and not any(
        is_partition(name) or usual_split(name) for name in top
    ):
        return []
    names: list[str] = []
    for name, _ in folder.walk():
        if is_image_name(name.encode()):
            return []
        names.append(name)
    return table_parts(names)


# --- class folders ---


class RemoteTree:
    """Class folders below the URL `root`; see `Tree`."""

    def __init__(self, root: str, *, any_image: bool = False) -> None:
        self._any_image = any_image
        self._folder = open_folder(root)
        self.root = self._folder.path
        self.files: Files = RemoteFiles(root)

    def classes(self) -> list[str]:
        """Return the sorted names of the class folders."""
        return [name for name in self._folder.folders() if name and name[0] != "."]

    def listings(self, names: Sequence[str]) -> Iterator[Listing]:
        """Yield the listing of each of the class folders `names`, requested concurrently."""
        return prefetch_map(self._list, names, max_in_flight=CONCURRENT_READS)

    def strays(self) -> Listing:
        """Return the images directly in the root, which have no class."""
        return Listing.of(
            (name.encode(), entry.bytes, version_number(entry))
            for name, entry in self._folder.entries().items()
            if self._is_image(name.encode()) and name[0] != "."
        )

    def _is_image(self, name: bytes) -> bool:
        return is_image_name(name, any_image=self._any_image)

    def _list(self, name: str) -> Listing:
        images, others = [], []
        for path, entry in self._folder.walk(name):
            if any(part.startswith(".") for part in path.split("/")):
                continue
            if self._is_image(path.encode()):
                images.append((path.encode(), entry.bytes, version_number(entry)))
            else:
                others.append(path.encode())
        return Listing.of(images, others)


# --- downloaded files ---


class FetchedSource:
    """A source of files downloaded to the folder `local`; names show their `url` instead."""

    def __init__(self, source: Source, local: Path, url: str, fingerprint: str = "") -> None:
        self.stats = replace(source.stats, fingerprint=fingerprint or source.stats.fingerprint)
        self.notes = tuple(note.replace(str(local), url) for note in source.notes)
        self.splits = getattr(source, "splits", ())
        self.optional_features = getattr(source, "optional_features", ())
        self.is_table = getattr(source, "is_table", False)
        self.concurrent_reads = int(getattr(source, "concurrent_reads", 1))
        self._source = source
        self._local = str(local)
        self._url = url

    def encoded(self, index: int) -> Encoded:
        """Return example `index`, packed; see `Source`."""
        return self._source.encoded(index)

    def features(self, index: int) -> Features:
        """Return example `index` as values; see `Source`."""
        return self._source.features(index)

    def columns(self, indices: Sequence[int]) -> "Columns | None":
        """Return examples as columns if the source has them; see `Source`."""
        columns = getattr(self._source, "columns", None)
        found: Columns | None = None if columns is None else columns(indices)
        return found

    def feature_values(self, name: str) -> FeatureValues | None:
        """Return the values of a feature if the source knows them; see `Source`."""
        values = getattr(self._source, "feature_values", None)
        found: FeatureValues | None = None if values is None else values(name)
        return found

    def name(self, index: int) -> str:
        """Return the name of example `index`, with the URL in place of the local path."""
        return self._source.name(index).replace(self._local, self._url)


class RemoteImages:
    """The images that a table in the folder at `url` may name: all files below that folder."""

    def __init__(self, url: str) -> None:
        self.files: Files = RemoteFiles(url)
        self._folder = open_folder(url)
        self._found: dict[str, tuple[int, int]] | None = None

    def stat(self, name: str) -> tuple[bytes, int, int]:
        """Return full path, size and version of an image; the first call lists all images.

        Raises:
          FileNotFoundError: there is no such image.
        """
        path = self.path(name)
        if not path.startswith(f"{self._folder.path}/"):  # as a column of links to the web
            raise FileNotFoundError(path)
        if self._found is None:
            self._found = {
                f"{self._folder.path}/{below}": (entry.bytes, version_number(entry))
                for below, entry in self._folder.walk()
            }
        if path not in self._found:
            raise FileNotFoundError(path)
        return path.encode(), *self._found[path]

    def path(self, name: str) -> str:
        """Return the full path of `name`, a path relative to the folder or a URL."""
        if "://" in name:
            return name
        return f"{self._folder.path}/{posixpath.normpath(name)}"


def _open_table(parent: str, names: list[str], scratch: Path, options: SourceOptions) -> Source:
    """Download a table's files, scan them, and remove them: the scan has stored their rows."""
    folder = open_folder(parent)
    if any(".." in name.split("/") for name in names):
        raise UserError(f"source '{folder.path}': a file has '..' in its name: rename it")
    local, _ = _fetch_all(folder, names, scratch)
    with _url_in_errors(local, folder.path):
        path = str(local / names[0]) if len(names) == 1 else str(local)
        files = table_files(path, str(local), names)
        source = scan_files(path, files, scratch, options, RemoteImages(parent))
    shutil.rmtree(local)
    return FetchedSource(source, local, folder.path)


def _open_arrays(
    parent: str, name: str, suffix: str, scratch: Path, options: SourceOptions
) -> Source:
    from tenfold.data.sources.arrays import scan_arrays

    folder = open_folder(parent)
    local, digest = _fetch_all(folder, [name], scratch)
    path = f"{local / name}:{suffix}" if suffix else str(local / name)
    with _url_in_errors(local, folder.path):
        source = scan_arrays(path, path, scratch, options)
    return FetchedSource(source, local, folder.path, f"arrays-{digest}{suffix and ':'}{suffix}")


def _open_tfrecords(url: str, names: list[str], scratch: Path, options: SourceOptions) -> Source:
    from tenfold.data.sources.record_files.tfrecords import features_from_manifest, scan_tfrecords

    folder = open_folder(url)
    manifest = [MANIFEST_NAME] if folder.entry(MANIFEST_NAME) else []
    local, digest = _fetch_all(folder, names + manifest, scratch)
    with _url_in_errors(local, folder.path):
        known, labels = features_from_manifest(str(local))
        files = [str(local / name) for name in names]
        source = scan_tfrecords(
            files,
            scratch,
            known=known,
            labels=labels,
            classes=options.classes,
            fingerprint=f"tfrecords-{digest}",
        )
    return FetchedSource(source, local, folder.path)


def _open_tars(url: str, names: list[str], scratch: Path, options: SourceOptions) -> Source:
    from tenfold.data.sources.record_files.webdataset import scan_webdataset

    folder = open_folder(url)
    local, digest = _fetch_all(folder, names, scratch)
    with _url_in_errors(local, folder.path):
        files = [str(local / name) for name in names]
        source = scan_webdataset(files, scratch, options, fingerprint=digest)
    return FetchedSource(source, local, folder.path)


@contextmanager
def _url_in_errors(local: Path, url: str) -> Iterator[None]:
    """Replace the local folder by its URL in the messages of UserErrors."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(local), url)) from error


def _fetch_all(folder: Folder, names: Sequence[str], scratch: Path) -> tuple[Path, str]:
    """Download the files `names`; return their local folder and a digest of their content.

    Raises:
      UserError: a file does not exist, or the local disk has no room.
      JobError: the storage could not be read.
    """
    local = scratch / _FETCHED_FOLDER
    for name in names:
        (local / name).parent.mkdir(parents=True, exist_ok=True)
    _check_room(folder, names, local)
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        crc32c = _fetch(folder, name, local / name)
        digest.update(f"{name}\0{(local / name).stat().st_size}\0{crc32c:08x}\0".encode())
    return local, digest.hexdigest()


def _check_room(folder: Folder, names: Sequence[str], local: Path) -> None:
    flat = len(names) > 1 and not any("/" in name for name in names)
    entries = folder.entries() if flat else {name: folder.entry(name) for name in names}
    for name in names:
        if entries.get(name) is None:
            raise UserError(f"source '{folder.path}/{name}' does not exist: check the path")
    needed = sum(entry.bytes for name in names if (entry := entries[name]))
    free = shutil.disk_usage(local).free
    if needed > free:
        raise UserError(
            f"source '{folder.path}/{names[0]}': the download of {plural(len(names), 'file')} "
            f"needs {format_size(needed)}, but '{local.parent.parent}' has {format_size(free)} "
            "free: set TMPDIR to a folder on a larger disk"
        )


def _fetch(folder: Folder, name: str, target: Path) -> int:
    """Download a file and return its CRC32C, compared with the storage's own, if any."""

    def once() -> int:
        entry = folder.entry(name)
        if entry is None:
            raise FileNotFoundError("the file no longer exists")
        read = partial(_read_range, folder, name, entry.bytes)
        crc32c = size = 0
        with open(target, "wb") as file:
            offsets = range(0, entry.bytes, _RANGE_BYTES)
            for part in prefetch_map(read, offsets, max_in_flight=_CONCURRENT_RANGES):
                file.write(part)
                crc32c = extend_crc32c(crc32c, part)
                size += len(part)
        if size != entry.bytes or entry.crc32c not in (None, crc32c):
            raise TransientError("the download differs from the stored file (size, CRC32C)")
        return crc32c

    try:
        return with_retries(once, what=f"{folder.path}/{name}")
    except OSError as error:
        raise JobError(f"{folder.path}/{name} could not be downloaded: {error}") from error


def _read_range(folder: Folder, name: str, size: int, offset: int) -> bytes:
    return folder.read_range(name, offset, min(_RANGE_BYTES, size - offset))
