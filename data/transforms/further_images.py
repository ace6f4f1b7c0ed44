"""The further images of a record, as ``mask`` beside ``image``, when ``image`` is transformed.

PNG files and arrays may be masks, whose values are classes: they are never smoothed, and palettes,
16 bits and single bits stay. JPEG files are photos and are treated as ``image`` is.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tenfold.data.format.image_header import image_format, is_image
from tenfold.data.format.manifest import IMAGE
from tenfold.data.sources.features import is_image_shape
from tenfold.data.transforms.base import Values

if TYPE_CHECKING:
    from PIL.Image import Image


def further_images(record: Values) -> list[str]:
    """Return the names of the features but ``image`` that are stored as images."""
    return [name for name, value in record.items() if name != IMAGE and _is_image(value)]


def _is_image(value: Any) -> bool:
    if isinstance(value, bytes):
        return is_image(value)
    return getattr(value, "dtype", None) == "uint8" and is_image_shape(value.shape)


def with_further_images(
    record: Values,
    resized: Callable[..., "Image"],
    *,
    at_least: tuple[int, int],
    quality: int,
) -> Values:
    """Return a record whose further images are resized as its ``image`` will be.

    Args:
      record: Features by name.
      resized: ``resized(image, smooth=…)`` returns the image in its new size; without `smooth`
        each of its pixels is a pixel of the old image.
      at_least: (height, width) that a decoded JPEG must have, as in `decode_image`.
      quality: JPEG quality, 1 to 100.

    Raises:
      ValueError: an image cannot be decoded, or EXIF turns ``image`` alone.
    """
    names = further_images(record)
    if not names:
        return record
    check_upright(record)
    further = {}
    for name in names:
        try:
            further[name] = _resized(record[name], resized, at_least, quality)
        except ValueError as error:
            raise ValueError(f"feature '{name}': {error}") from error
    return {**record, **further}


def _resized(
    value: Any, resized: Callable[..., "Image"], at_least: tuple[int, int], quality: int
) -> Any:
    from tenfold.data.format.image_codec import (
        decode_image,
        decode_stored,
        encode_image,
        image_from_array,
        image_to_array,
    )

    if not isinstance(value, bytes):
        array = image_to_array(resized(image_from_array(value), smooth=False))
        return array[..., 0] if value.ndim == 2 else array
    if image_format(value) == "png":
        return encode_image(resized(decode_stored(value), smooth=False), "png")
    photo = decode_image(value, at_least=at_least)
    return encode_image(resized(photo, smooth=True), "jpeg", quality=quality)


def check_upright(record: Values) -> None:
    """Check that EXIF does not turn ``image`` when it is decoded: it would leave masks behind.

    Raises:
      ValueError: it does, and a further image is not a JPEG with an EXIF of its own.
    """
    from tenfold.data.format.image_codec import is_turned

    image = record.get(IMAGE)
    if not isinstance(image, bytes) or image_format(image) != "jpeg":
        return
    masks = [
        name
        for name in further_images(record)
        if not isinstance(record[name], bytes) or image_format(record[name]) != "jpeg"
    ]
    if masks and is_turned(image):
        raise ValueError(
            f"EXIF turns the image, but not '{masks[0]}': store both upright, without EXIF"
        )
