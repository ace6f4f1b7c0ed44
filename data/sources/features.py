"""From the user's features to the stored ones: ``image``, ``label`` and the rest.

Encoded images are recognised by their first bytes, uint8 arrays of an image's shape are encoded
as PNG, and a one-hot label becomes the index of its class.
"""

from collections.abc import Mapping
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.example import Features, encode_lists, to_list
from tenfold.data.format.image_header import image_shape, is_image
from tenfold.data.format.manifest import IMAGE, LABEL, Feature
from tenfold.data.sources.base import Encoded, UnusableRecord

LABEL_NAMES: Final = ("label", "labels", "class", "target", "targets", "y")
IMAGE_NAMES: Final = ("image", "img", "picture", "x")
PATH_NAMES: Final = ("path", "file", "filename", "filepath", "file_name", "image", "image_path")


def choose_feature(
    wanted: str, usual: tuple[str, ...], names: Mapping[str, Any], what: str
) -> str:
    """Return the name of the feature that holds the image or the label; "" if none does.

    Args:
      wanted: The name that the user chose; "" for none.
      usual: Names to try otherwise, in lower case, the most usual first.
      names: The features that exist, by name.
      what: ``image`` or ``label``, for the error.

    Raises:
      UserError: there is no feature `wanted`.
    """
    if wanted:
        if wanted not in names and what == "image" and "," in wanted:
            raise UserError(
                f"--{what}_feature={wanted}: only a table takes several columns of images: give "
                "the name of one feature"
            )
        if wanted not in names:
            raise UserError(
                f"--{what}_feature={wanted}: there is no such feature; "
                f"there are: {', '.join(map(str, names))}"
            )
        return wanted
    lowered = {str(name).lower(): name for name in names}
    return next((lowered[name] for name in usual if name in lowered), "")


def is_one_hot(value: Any) -> bool:
    """Whether a label is a vector of zeros with a single 1."""
    flat = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(flat, (list, tuple)) or len(flat) < 2:
        return False
    return all(item in (0, 1) for item in flat) and sum(flat) == 1


def class_index(value: Any) -> int:
    """Return the index of the largest entry of a label vector."""
    flat = value.tolist() if hasattr(value, "tolist") else list(value)
    return int(max(range(len(flat)), key=flat.__getitem__))


def _stored_value(value: Any) -> Any:
    """Return a value as it is stored: a uint8 array of an image's shape becomes PNG bytes."""
    if getattr(value, "dtype", None) == "uint8" and is_image_shape(value.shape):
        from tenfold.data.format.image_codec import encode_image, image_from_array

        return encode_image(image_from_array(value), "png")
    return value


def is_image_shape(shape: tuple[int, ...]) -> bool:
    """Whether a uint8 array of `shape` is stored as an image."""
    return min(shape, default=0) > 0 and (
        len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    )


def encode_features(features: Features) -> Encoded:
    """Pack a record.

    Raises:
      UnusableRecord: a value cannot be stored, or an encoded image is broken.
    """
    lists, schema = {}, []
    try:
        for name in sorted(features):
            value = _stored_value(features[name])
            kind, packed, shape = to_list(name, value)
            lists[name] = (kind, packed)
            schema.append(feature_of(name, kind, shape, value))
    except ValueError as error:
        raise UnusableRecord(str(error)) from error
    return Encoded(encode_lists(lists), tuple(schema), _label_of(features, schema))


def feature_of(name: str, kind: str, shape: tuple[int, ...], value: Any) -> Feature:
    """Return the schema of one value: kind ``image`` for the bytes of an encoded image.

    Raises:
      ValueError: the image is broken.
    """
    if kind == "bytes" and shape == () and isinstance(value, bytes) and is_image(value):
        try:
            return Feature(name, "image", image_shape(value))
        except ValueError as error:
            raise ValueError(f"feature '{name}': {error}") from error
    return Feature(name, kind, shape)


def _label_of(features: Features, schema: list[Feature]) -> int | None:
    for feature in schema:
        if feature.name == LABEL and feature.kind == "int64" and feature.shape == ():
            return int(features[LABEL])
    return None


def with_standard_names(features: Features, image: str, label: str) -> dict[str, Any]:
    """Return the features with the image as ``image`` and the label as ``label``.

    `image` and `label` are their names in `features`, "" for none.
    """
    names = {image: IMAGE, label: LABEL}
    return {names.get(name, name) if name else name: value for name, value in features.items()}
