"""Streams of feature dicts: a `tf.data.Dataset`, or any iterable of the user's.

A stream can be read only once and in order. So the scan writes ("spools") it to a TFRecord file
in the scratch folder, and the records of that file are distributed to shards.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE, LABEL
from tenfold.data.format.schema import SchemaError, SchemaObserver
from tenfold.data.format.tfrecord import fingerprint64, frame
from tenfold.data.sources.base import Encoded, SourceOptions, UnusableRecord
from tenfold.data.sources.class_labels import known_indices
from tenfold.data.sources.features import (
    IMAGE_NAMES,
    LABEL_NAMES,
    choose_feature,
    class_index,
    encode_features,
    is_one_hot,
    with_standard_names,
)
from tenfold.data.sources.record_files.tfrecords import TFRecordSource, scan_tfrecords


@dataclass
class OneHot:
    """The length of label vectors that have become class indices; 0 for other labels."""

    length: int = 0


def spool_stream(
    what: str,
    stream: Iterable[Any],
    scratch: Path,
    options: SourceOptions,
) -> TFRecordSource:
    """Read all of `stream`, and return its examples as a source.

    Args:
      what: The name of the stream in errors.
      stream: Dicts of features, or pairs of an input and a label; single or in batches.
      scratch: Local folder for the spooled records.
      options: Names of image and label; whether labels are one-hot and elements batches.

    Raises:
      UserError: an element is neither a dict of features nor a pair, or its features do not
        match those of earlier elements.
    """
    path = scratch / "stream.records"
    observer = SchemaObserver()
    one_hot = OneHot()
    digest = hashlib.blake2b(digest_size=8)
    with open(path, "wb", buffering=1 << 20) as file:
        for number, features in enumerate(examples_of(what, stream, options, one_hot)):
            encoded = _encode(what, number, features, observer)
            digest.update(fingerprint64(encoded.payload).to_bytes(8, "little"))
            file.write(frame(encoded.payload))
    return scan_tfrecords(
        [str(path)],
        scratch,
        known=tuple(feature for feature in observer.schema if feature.kind != "image"),
        labels=known_indices(one_hot.length, options.classes) if one_hot.length else None,
        classes=None if one_hot.length else options.classes,
        fingerprint=f"stream-{digest.hexdigest()}",
    )


def _encode(
    what: str, number: int, features: Mapping[str, Any], observer: SchemaObserver
) -> Encoded:
    try:
        encoded = encode_features(features)
        observer.add(encoded.schema)
    except (UnusableRecord, SchemaError) as error:
        raise UserError(f"{what}: example {number}: {error}") from error
    return encoded


def examples_of(
    what: str, stream: Iterable[Any], options: SourceOptions, vectors: OneHot
) -> Iterator[dict[str, Any]]:
    """Yield single examples with the features ``image`` and ``label``; batches are split.

    Whether elements are batches and labels one-hot is decided by the first element and label.
    `vectors` keeps the length of one-hot labels.

    Raises:
      UserError: an element is neither a dict of features nor a pair of an input and a label.
    """
    batched: bool | None = {"yes": True, "no": False}.get(options.batched)
    one_hot: bool | None = {"always": True, "never": False}.get(options.one_hot)
    for element in numpy_elements(stream):
        features = _as_dict(what, element, options)
        if batched is None:
            batched = _looks_batched(what, features)
        for example in _unbatch(what, features) if batched else [features]:
            label = example.get(LABEL)
            if one_hot is None:
                one_hot = is_one_hot(label)
            if one_hot and label is not None:
                vectors.length = len(label)
                example[LABEL] = class_index(label)
            yield example


def numpy_elements(stream: Iterable[Any]) -> Iterable[Any]:
    """Return the elements of `stream`, with tensors as numpy arrays."""
    as_numpy = getattr(stream, "as_numpy_iterator", None)
    return as_numpy() if as_numpy is not None else stream


def _as_dict(what: str, element: Any, options: SourceOptions) -> dict[str, Any]:
    if isinstance(element, tuple) and len(element) == 2:
        inputs, label = element
        element = {**inputs, LABEL: label} if isinstance(inputs, Mapping) else {
            IMAGE: inputs, LABEL: label
        }  # fmt: skip
    if not isinstance(element, Mapping):
        raise UserError(
            f"{what} yields {type(element).__name__}: it must yield dicts of features, "
            "or pairs of an input and a label"
        )
    label = choose_feature(options.label, LABEL_NAMES, element, "label")
    image = choose_feature(options.image, IMAGE_NAMES, element, "image")
    return with_standard_names(element, image, label)


def _looks_batched(what: str, features: Mapping[str, Any]) -> bool:
    """Whether the first dimension of all features counts examples.

    Raises:
      UserError: the shapes allow both answers.
    """
    label = features.get(LABEL)
    if any(not getattr(value, "shape", ()) for value in features.values()):
        return False
    if len({value.shape[0] for value in features.values()}) > 1:
        return False
    if label is None or is_one_hot(label):
        raise UserError(
            f"{what}: the shapes of its elements do not show whether they are batches: "
            "set --batched=yes or --batched=no"
        )
    return True


def _unbatch(what: str, features: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    lengths = {len(value) for value in features.values()}
    if len(lengths) != 1:
        raise UserError(f"{what}: the features of a batch have different lengths: {lengths}")
    for index in range(lengths.pop()):
        yield {name: value[index] for name, value in features.items()}
