"""From the text of ``--source=`` to an open source; the module of each kind is imported on use."""

import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold.data.errors import UserError
from tenfold.data.planning.splits.split_names import split_folders
from tenfold.data.sources.base import Source, SourceOptions
from tenfold.data.sources.record_files.tar_members import expand_braces, is_tar_name
from tenfold.data.storage.folder import is_url

KINDS = (
    "a folder of class folders, or of images and masks, a table (.csv, .tsv, .jsonl, .parquet, "
    ".arrow, or a folder or pattern of parts), .npz or .npy arrays, TFRecord files or WebDataset "
    "tars (a folder or pattern of them), tfds:NAME, hf:FOLDER, or module:function"
)


def open_source(spec: Any, scratch: Path, options: SourceOptions | None = None) -> Source:
    """Scan the source that `spec` names, and return it.

    Args:
      spec: A path, a URL (``gs://bucket/prefix``), ``tfds:NAME[:SPLIT]`` or
        ``module:function``; or a `tf.data.Dataset` or an iterable of dicts of features; or a dict
        of one of these for each split.
      scratch: Empty local folder for the results of the scan. It must outlive the source.
      options: Properties that the source cannot reveal by itself.

    Raises:
      UserError: there is no such source, or it cannot be used.
      JobError: remote storage could not be read.
    """
    options = options or SourceOptions()
    source = _open(spec, scratch, options)
    is_one = not isinstance(spec, Mapping) and not options.labels  # else each part was checked
    unused = options.for_tables if is_one and not getattr(source, "is_table", False) else ()
    if unused:
        raise UserError(f"{', '.join(unused)}: only a table takes this; the source is none")
    return source


def _open(spec: Any, scratch: Path, options: SourceOptions) -> Source:
    if isinstance(spec, os.PathLike):
        spec = os.fspath(spec)
    if isinstance(spec, Mapping):
        return _splits(spec, scratch, options)
    if not isinstance(spec, str):
        return _stream(type(spec).__name__, spec, scratch, options)
    path = os.path.expanduser(spec.removeprefix("file://"))
    if options.labels:
        return _labelled(path, scratch, options)
    if is_url(path):
        from tenfold.data.sources.remote import open_remote

        return open_remote(path, scratch, options)
    if spec.startswith("hf:"):
        from tenfold.data.sources.tables.huggingface import open_huggingface

        return open_huggingface(spec, scratch, options)
    if spec.startswith("tfds:"):
        from tenfold.data.sources.record_files.tfrecords import scan_tfds

        return scan_tfds(spec, scratch, options)
    if os.path.isdir(path):
        return _folder(path, scratch, options)
    if ".npz:" in path or path.endswith((".npz", ".npy")):
        return _arrays(spec, path, scratch, options)
    files = _tfrecord_files(path)
    if files:
        return _tfrecords(files, scratch, options)
    if tars := _tar_files(path):
        return _tars(tars, scratch, options)
    if os.path.isfile(path):
        from tenfold.data.sources.record_files.webdataset_fields import refused_field

        if kind := refused_field(path):
            raise UserError(
                f"source '{path}' is {kind}: read it in a function of your own that yields dicts "
                "of features, and give that as the source, module:function"
            )
        return _table(path, scratch, options)
    return _pattern(path, scratch, options) or _reference(spec, scratch, options)


def _folder(path: str, scratch: Path, options: SourceOptions) -> Source:
    files = _tfrecord_files(os.path.join(glob.escape(path), "*"))
    if files:
        return _tfrecords(files, scratch, options)
    if tars := _tar_files(os.path.join(glob.escape(path), "*")):
        return _tars(tars, scratch, options)
    if table := _pattern(path, scratch, options):
        return table
    with os.scandir(path) as entries:
        folders = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    if found := split_folders(path, folders):
        specs = {split: os.path.join(path, name) for split, name in found.items()}
        return _splits(specs, scratch, options)
    from tenfold.data.sources.image_folders.class_folders import scan_tree
    from tenfold.data.sources.image_folders.image_tree import LocalTree, paired_names

    if all(paired_names(folders)):
        from tenfold.data.sources.tables.paired_folders import scan_pairs

        whole = LocalTree(path, any_image=options.any_image)
        if pairs := scan_pairs(whole, scratch, options):
            return pairs
    tree = LocalTree(path, any_image=options.any_image, sizes_only=options.sizes_only)
    return scan_tree(tree, scratch, options)


def _splits(specs: Mapping[str, Any], scratch: Path, options: SourceOptions) -> Source:
    from tenfold.data.sources.split_sources import join_splits

    # Joining looks at records of each part.
    options = replace(options, sizes_only=False)
    return join_splits(specs, scratch, lambda spec, folder: open_source(spec, folder, options))


def _labelled(path: str, scratch: Path, options: SourceOptions) -> Source:
    from tenfold.data.sources.image_folders.image_tree import LocalTree, Tree
    from tenfold.data.sources.tables.labelled_folder import scan_labelled_folder

    tree: Tree
    if is_url(path):
        from tenfold.data.sources.remote import RemoteTree

        tree = RemoteTree(path, any_image=options.any_image)
    elif os.path.isdir(path):
        tree = LocalTree(path, any_image=options.any_image)
    else:
        raise UserError(f"source '{path}' is no folder: --labels is for a folder of images")
    return scan_labelled_folder(tree, scratch, options)


def _tfrecord_files(pattern: str) -> list[str]:
    """Return the files that match a glob pattern and are TFRecord files by name, sorted."""
    found = glob.glob(pattern)
    if len(found) == 1 and found[0] == pattern and pattern.endswith(".tfrecords"):
        return found
    return sorted(
        path for path in found if ".tfrecord" in os.path.basename(path) and os.path.isfile(path)
    )


def _tar_files(pattern: str) -> list[str]:
    """Return the tar files that match a glob pattern with or without ``{000..099}``.

    Raises:
      UserError: a file that the braces name does not exist.
    """
    if not os.path.exists(pattern) and "{" in pattern:
        names = [name for name in expand_braces(pattern) if is_tar_name(name)]
        missing = [name for name in names if not glob.glob(name)]
        if missing:
            raise UserError(
                f"source '{pattern}': '{missing[0]}' does not exist "
                f"({len(missing):,} of {len(names):,} files are missing)"
            )
        return [path for name in names for path in sorted(glob.glob(name))]
    found = [pattern] if os.path.isfile(pattern) else glob.glob(pattern)
    return sorted(path for path in found if is_tar_name(path) and os.path.isfile(path))


def _tars(files: list[str], scratch: Path, options: SourceOptions) -> Source:
    from tenfold.data.sources.record_files.webdataset import scan_webdataset

    return scan_webdataset(files, scratch, options)


def _tfrecords(files: list[str], scratch: Path, options: SourceOptions) -> Source:
    from tenfold.data.sources.record_files.tfrecords import features_from_manifest, scan_tfrecords

    known, labels = features_from_manifest(os.path.dirname(files[0]))
    return scan_tfrecords(files, scratch, known=known, labels=labels, classes=options.classes)


def _arrays(spec: str, path: str, scratch: Path, options: SourceOptions) -> Source:
    from tenfold.data.sources.arrays import scan_arrays

    file = path.partition(".npz:")[0] + ".npz" if ".npz:" in path else path
    if not os.path.exists(file):
        raise UserError(f"source '{spec}' does not exist: check the path")
    return scan_arrays(spec, path, scratch, options)


def _table(path: str, scratch: Path, options: SourceOptions) -> Source:
    source = _pattern(path, scratch, options)
    if source is None:
        raise UserError(f"source '{path}' is of an unknown kind: a source is {KINDS}")
    return source


def _pattern(path: str, scratch: Path, options: SourceOptions) -> Source | None:
    """Return the table of a file, a folder of parts or a pattern of them; None if it is none."""
    from tenfold.data.sources.tables.open_table import open_table

    return open_table(path, scratch, options)


def _reference(spec: str, scratch: Path, options: SourceOptions) -> Source:
    from tenfold.data.runtime.user_code import load_user_object, names_user_object

    if not names_user_object(spec):
        raise UserError(f"source '{spec}' does not exist: a source is {KINDS}")
    function = load_user_object(spec, "source")
    try:
        stream = function() if callable(function) else function
    except Exception as error:
        raise UserError(f"source '{spec}' raises {type(error).__name__}: {error}") from error
    return _stream(f"source '{spec}'", stream, scratch, options)


def _stream(what: str, stream: Any, scratch: Path, options: SourceOptions) -> Source:
    from tenfold.data.sources.stream import spool_stream

    if isinstance(stream, Mapping) or not isinstance(stream, Iterable):
        raise UserError(
            f"{what} is of type {type(stream).__name__}: "
            "give a tf.data.Dataset or an iterable of dicts of features"
        )
    return spool_stream(what, stream, scratch, options)
