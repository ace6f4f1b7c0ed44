"""Check that records can be parsed and their images decoded, outside of a reading pipeline.

Imports TensorFlow only where the decoder needs it.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tenfold.data.format.example import decode_example
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
    except ValueError as error:
        return f"cannot be parsed: {error}"
    for feature in features:
        wanted = "bytes" if feature.kind == "image" else feature.kind
        kind, values = example.get(feature.name, (wanted, []))
        count = 1 if feature.kind == "image" else _num_values(feature)
        if kind != wanted or len(values) != count:
            return (
                f"cannot be parsed: feature '{feature.name}' has {len(values)} {kind} values, "
                f"the manifest says {count} {wanted}"
            )
    return ""


def _num_values(feature: Feature) -> int:
    return math.prod(size or 1 for size in feature.shape)


def one_line(message: str) -> str:
    """Return the line of a decoder's message that has the reason."""
    lines = [line for line in message.splitlines() if line.strip()] or [message]
    decoding = [line for line in lines if "cannot be decoded: " in line]
    line = (decoding or lines)[-1 if decoding else 0].rsplit("cannot be decoded: ", 1)[-1]
    return line.rsplit("}}", 1)[-1].removesuffix("[Op:DecodeImage] name:").strip()
