"""``tfds:NAME[:SPLIT]``: a prepared data set of TensorFlow Datasets, its records as they are."""

from pathlib import Path
from typing import Any

from tenfold.data.errors import UserError
from tenfold.data.manifest import LABEL
from tenfold.data.sources.tfrecords import TFRecordSource, scan_tfrecords, shapes_of


def scan_tfds(spec: str, scratch: Path) -> TFRecordSource:
    """Returns the records of a prepared TFDS data set: of one split, or of all.

    Raises:
      UserError: TFDS is missing, or the data set is not there as TFRecord files.
    """
    _, _, name = spec.partition(":")
    name, _, split = name.partition(":")
    builder = _builder(spec, name)
    splits = builder.info.splits
    chosen = [split] if split else sorted(splits)
    if not splits or any(one not in splits for one in chosen):
        there = ", ".join(sorted(splits)) or "none: it is not prepared (tfds build)"
        raise UserError(f"source '{spec}': no such split; there are: {there}")
    files = [str(path) for one in chosen for path in splits[one].filepaths]
    if not all("tfrecord" in Path(file).name for file in files):
        raise UserError(f"source '{spec}' is stored as {builder.info.file_format}, not TFRecord")
    return scan_tfrecords(
        files,
        scratch,
        known=shapes_of(_flat(builder.info.features.get_serialized_info())),
        label_names=_label_names(builder.info.features),
    )


def _builder(spec: str, name: str) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"source '{spec}' needs TFDS: pip install 'tenfold[tfds]'") from error
    try:
        if Path(name).is_dir():
            return tfds.builder_from_directory(name)
        return tfds.builder(name)
    except Exception as error:
        raise UserError(f"source '{spec}': {type(error).__name__}: {error}") from error


def _flat(info: Any, prefix: str = "") -> dict[str, Any]:
    """Returns nested feature infos by the names that TFDS stores: ``a/b``."""
    if not isinstance(info, dict):
        return {prefix: info}
    flat: dict[str, Any] = {}
    for name, value in info.items():
        flat |= _flat(value, f"{prefix}/{name}" if prefix else name)
    return flat


def _label_names(features: Any) -> tuple[str, ...]:
    label = dict(features.items()).get(LABEL)
    return tuple(getattr(label, "names", ()) or ())
