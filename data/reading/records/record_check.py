"""Check that records can be parsed and their images decoded, outside of a reading pipeline.

Imports TensorFlow only where the decoder needs it.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from tenfold.data.format.example import count_values, decode_example, walk_sequences
from tenfold.data.format.manifest import Feature
from tenfold.data.reading.decoding.decoders import (
    AUTO,
    Decoder,
    PythonDecoder,
    load_decoder,
    make_decoder,
)


class ImageCheck:
    """Decodes images as training would; picklable.

    Args:
      channels: channels that training decodes to, 1 or 3.
      decoder: the name of the decoder.
      working_dir: the folder that a decoder of the user's own is relative to.
    """

    def __init__(self, channels: int, decoder: str = AUTO, working_dir: str = "") -> None:
        self._channels = channels
        self._name = decoder
        self._working_dir = working_dir

    @cached_property
    def _decoder(self) -> Decoder:
        factory = load_decoder(self._name, working_dir=self._working_dir)
        return make_decoder(factory, (1, 1, self._channels))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_decoder"}

    def problem(self, image: bytes) -> str:
        """Return the reason why an image cannot be decoded; "" if it can."""
        if isinstance(self._decoder, PythonDecoder):
            try:
                self._decoder.decode_batch([image], None, lambda _: "image")
            except ValueError as error:
                return one_line(str(error))
            return ""
        import tensorflow as tf

        try:
            self._decoder(tf.constant([image]), None)
        except tf.errors.OpError as error:
            return one_line(error.message)
        except UnicodeDecodeError as error:  # TensorFlow's message quotes the image
            return one_line(error.object.decode("ascii", "replace"))
        return ""


class RecordCheck:
    """Parses records and decodes their images as training would; picklable.

    Args:
      features: the features of the manifest.
      decoder: the name of the decoder.
      working_dir: the folder that a decoder of the user's own is relative to.
    """

    def __init__(
        self, features: Sequence[Feature], *, decoder: str = AUTO, working_dir: str = ""
    ) -> None:
        self._features = tuple(features)
        self._images = {
            feature.name: ImageCheck(channels_of(feature.shape), decoder, working_dir)
            for feature in features
            if feature.kind == "image"
        }

    def __call__(self, payload: bytes) -> str:
        """Return the reason why training cannot read a record; "" if it can."""
        if problem := parse_problem(payload, self._features):
            return problem
        if not self._images:
            return ""
        example = decode_example(payload)
        for name, check in self._images.items():
            if problem := check.problem(example[name][1][0]):
                return f"cannot be decoded: {problem}"
        return ""


def channels_of(shape: Sequence[int | None]) -> int:
    """Return the channels that images are decoded to: 1 where all of them are grey, else 3."""
    return 1 if len(shape) == 3 and shape[2] == 1 else 3


def parse_problem(payload: bytes, features: Sequence[Feature]) -> str:
    """Return the reason why a record does not hold the features' values; "" if it does."""
    try:
        example = decode_example(payload)
        sequences = dict(walk_sequences(payload)) if any(f.sequence for f in features) else {}
    except ValueError as error:
        return f"cannot be parsed: {error}"
    for feature in features:
        if feature.sequence:
            problem = _sequence_problem(feature, sequences)
        elif feature.optional and feature.name not in example:
            continue
        else:
            wanted = "bytes" if feature.kind == "image" else feature.kind
            kind, values = example.get(feature.name, (wanted, []))
            problem = _count_problem(feature, kind, len(values))
        if problem:
            return f"cannot be parsed: feature '{feature.name}' {problem}"
    return ""


def _count_problem(feature: Feature, kind: str, count: int) -> str:
    """Return how a record's values differ in kind or number from the manifest; "" if they fit."""
    image = feature.kind == "image"
    wanted = "bytes" if image else feature.kind
    known = 1 if image else math.prod(size for size in feature.shape if size is not None)
    is_open = not image and None in feature.shape
    fits = count % max(1, known) == 0 if is_open else count == known
    if fits and (kind == wanted or (not kind and is_open)):  # an empty list may have no kind
        return ""
    number = f"a multiple of {known}" if is_open else str(known)
    return f"has {count} {kind} values, the manifest says {number} {wanted}"


def _sequence_problem(
    feature: Feature, sequences: Mapping[str, Sequence[tuple[str, bytes]]]
) -> str:
    """Return how a record's sequence differs from the manifest; "" if it fits."""
    if feature.name not in sequences:
        return "is missing among the record's sequences"
    step = Feature(feature.name, feature.kind, feature.shape[1:])
    if feature.kind == "image":
        step = Feature(feature.name, "bytes")
    for kind, packed in sequences[feature.name]:
        if problem := _count_problem(step, kind, count_values(kind, packed)):
            return f"has a step that {problem}"
    return ""


def one_line(message: str) -> str:
    """Return the line of a decoder's message that has the reason."""
    lines = [line for line in message.splitlines() if line.strip()] or [message]
    decoding = [line for line in lines if "cannot be decoded: " in line]
    line = (decoding or lines)[-1 if decoding else 0].rsplit("cannot be decoded: ", 1)[-1]
    return line.rsplit("}}", 1)[-1].removesuffix("[Op:DecodeImage] name:").strip()
