"""From what users call their features to what is stored: ``image``, ``label`` and the rest.

Encoded images are found by their first bytes, arrays of bytes that look like images become
PNG, and a one-hot label becomes the index of its class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.example import Features, encode_lists, to_list
from tenfold.data.format.image_header import image_shape, is_image
from tenfold.data.format.manifest import IMAGE, LABEL, Feature
from tenfold.data.sources.base import Encoded, UnusableRecord

LABEL_NAMES: Final = ("label", "labels", "class", "target", "targets", "y")
IMAGE_NAMES: Final = ("image", "img", "picture", "x")
PATH_NAMES: Final = ("path", "file", "filename", "filepath", "file_name", "image", "image_path")


@dataclass(frozen=True)
class SourceOptions:
    """What a source cannot know by itself.

    `image` and `label` name the features (columns) that are the image and the class; empty,
    the usual names are looked for. `one_hot` is ``auto``, ``always`` or ``never``; `batched`
    says the same of the batches of a stream.
    """

    image: str = ""
    label: str = ""
    one_hot: str = "auto"
    batched: str = "auto"


def pick(wanted: str, usual: tuple[str, ...], names: Mapping[str, Any], what: str) -> str:
    """Returns the name of the image or the class among `names`, "" where there is none.

    Raises:
      UserError: `wanted` is not among them.
    """
    if wanted:
        if wanted not in names:
            raise UserError(
                f"--{what}_feature={wanted}: there is no such feature; "
                f"there are: {', '.join(map(str, names))}"
            )
        return wanted
    lowered = {str(name).lower(): name for name in names}
    return next((lowered[name] for name in usual if name in lowered), "")


def is_one_hot(value: Any) -> bool:
    """Says whether a label is a vector of zeros and a single one."""
    flat = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(flat, (list, tuple)) or len(flat) < 2:
        return False
    return all(item in (0, 1) for item in flat) and sum(flat) == 1


def class_index(value: Any) -> int:
    """Returns the index of the largest entry of a label vector."""
    flat = value.tolist() if hasattr(value, "tolist") else list(value)
    return int(max(range(len(flat)), key=flat.__getitem__))


def store_value(value: Any) -> Any:
    """Returns a value as it is stored: an array of bytes that is an image becomes PNG."""
    if getattr(value, "dtype", None) == "uint8" and _is_image_shape(value.shape):
        from tenfold.data.format.image_codec import encode_image, image_from_array

        return encode_image(image_from_array(value), "png")
    return value


def _is_image_shape(shape: tuple[int, ...]) -> bool:
    return min(shape, default=0) > 0 and (
        len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    )


def encode_features(features: Features) -> Encoded:
    """Returns a record of values, packed.

    Raises:
      UnusableRecord: a value cannot be stored, or an encoded image is broken.
    """
    lists, schema = {}, []
    try:
        for name in sorted(features):
            value = store_value(features[name])
            kind, packed, shape = to_list(name, value)
            lists[name] = (kind, packed)
            schema.append(describe(name, kind, shape, value))
    except ValueError as error:
        raise UnusableRecord(str(error)) from error
    return Encoded(encode_lists(lists), tuple(schema), label_of(features, schema))


def describe(name: str, kind: str, shape: tuple[int, ...], value: Any) -> Feature:
    """Returns the feature that one value is; raises ValueError for a broken image."""
    if kind == "bytes" and shape == () and isinstance(value, bytes) and is_image(value):
        try:
            return Feature(name, "image", image_shape(value))
        except ValueError as error:
            raise ValueError(f"feature '{name}': {error}") from error
    return Feature(name, kind, shape)


def label_of(features: Features, schema: list[Feature]) -> int | None:
    """Returns the class of a record, None where it has none."""
    for feature in schema:
        if feature.name == LABEL and feature.kind == "int64" and feature.shape == ():
            return int(features[LABEL])
    return None


def rename(features: Features, image: str, label: str) -> dict[str, Any]:
    """Returns the features with the image and the class under their usual names."""
    names = {image: IMAGE, label: LABEL}
    return {names.get(name, name) if name else name: value for name, value in features.items()}
