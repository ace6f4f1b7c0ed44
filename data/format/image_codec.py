"""Decoding and encoding of images, and conversion between images and arrays.

Needs Pillow and numpy; imported only where pixels are used.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.image_header import check_pixels, other_format

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

JPEG_QUALITY: Final = 90
_ORIENTATION: Final = 0x0112  # EXIF 2.3, table 4
FORMATS: Final = ("jpeg", "png")
_MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# Rounding of float32 may exceed [0, 1] by this much.
_TOLERANCE: Final = 1e-3


def pillow() -> Any:
    """Return the module PIL.Image.

    Raises:
      UserError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageFile
    except ImportError as error:
        raise UserError("decoding images needs Pillow: pip install 'tenfold[images]'") from error
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    return Image


def decode_image(data: bytes, *, at_least: tuple[int, int] | None = None) -> "Image":
    """Return the decoded image in mode L, LA, RGB or RGBA, turned upright as EXIF demands.

    Of 16 bits per channel the upper 8 are kept, as TensorFlow does.

    Args:
      data: the encoded JPEG or PNG.
      at_least: (height, width); a JPEG may be decoded at a fraction of its size that is not
        smaller, which is quicker.

    Raises:
      ValueError: the image cannot be decoded.
    """
    return _upright(_convert_mode(_loaded(data, ("JPEG", "PNG"), at_least)))


def decode_stored(data: bytes) -> "Image":
    """Return a decoded JPEG or PNG in its own mode: with its palette, its 16 bits, not turned.

    Raises:
      ValueError: the image cannot be decoded.
    """
    return _loaded(data, ("JPEG", "PNG"), None)


def is_turned(data: bytes) -> bool:
    """Return True if EXIF names an orientation of a JPEG other than upright.

    Raises:
      ValueError: the image cannot be decoded.
    """
    try:
        return _is_turned(pillow().open(io.BytesIO(data), formats=("JPEG",)))
    except OSError as error:
        raise ValueError(f"it cannot be decoded ({error})") from error


def decode_any_image(
    data: bytes, *, at_least: tuple[int, int] | None = None
) -> tuple["Image", tuple[str, ...]]:
    """Return an image of any format that Pillow opens as `decode_image` does; and the changes.

    Of several frames the first is taken. HEIF and AVIF need pillow-heif, or a Pillow that knows
    them.

    Args:
      data: the encoded image.
      at_least: as in `decode_image`.

    Returns:
      The image, and what its conversion loses, one remark each.

    Raises:
      ValueError: the image cannot be decoded, or its pixels are neither of 8 nor of 16 bits.
    """
    image = _loaded(data, _every_format(), at_least)
    return _upright(_convert_mode(image)), tuple(_losses(image))


def _losses(image: "Image") -> Iterator[str]:
    """Yield what is lost when the image is brought to 8 bits of grey, RGB, or these with alpha."""
    # A JPEG of several pictures (MPO) has the photo first, then previews of it.
    if image.format not in ("JPEG", "MPO") and getattr(image, "is_animated", False):
        yield f"{image.format}: the first of several frames"
    if image.mode.startswith("I"):
        yield "16 bits a channel became 8"
    elif image.mode not in (*_MODES.values(), "1", "P", "PA", "RGBX", "RGBa", "La"):
        yield f"{image.mode} became RGB"


@cache
def _every_format() -> tuple[str, ...]:
    """Return the formats that may be opened: those of Pillow but EPS, which runs Ghostscript."""
    module = pillow()
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    module.init()
    return tuple(name for name in module.OPEN if name != "EPS")


def _loaded(data: bytes, formats: tuple[str, ...], at_least: tuple[int, int] | None) -> "Image":
    """Return the image with its pixels decoded, in its own mode.

    Raises:
      ValueError: it cannot be decoded.
    """
    module = pillow()
    try:
        image = module.open(io.BytesIO(data), formats=formats)
        check_pixels(image.height, image.width)
        # A PNG has no drafts, and its getexif() decodes the pixels: `load` must see their errors.
        if at_least is not None and image.format == "JPEG":
            side = max(at_least) if _is_turned(image) else 0
            image.draft(None, (max(at_least[1], side), max(at_least[0], side)))
        image.load()
    except module.UnidentifiedImageError:
        raise ValueError(f"it cannot be decoded ({_unknown(data)})") from None
    except (OSError, ValueError, SyntaxError, module.DecompressionBombError) as error:
        raise ValueError(f"it cannot be decoded ({error})") from error
    return image


def _unknown(data: bytes) -> str:
    name = other_format(data)
    if name in ("HEIF", "AVIF"):
        return f"{name} needs pillow-heif: pip install pillow-heif"
    return f"{name or 'its format'} is not among those that Pillow opens here"


def _is_turned(image: "Image") -> bool:
    """Return True if EXIF names an orientation other than upright; damaged EXIF names none."""
    try:
        return image.getexif().get(_ORIENTATION, 1) != 1
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return False


def _upright(image: "Image") -> "Image":
    if not _is_turned(image):
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _convert_mode(image: "Image") -> "Image":
    """Return the image in mode L, LA, RGB or RGBA, with its EXIF."""
    if image.mode in _MODES.values():
        return image
    if image.mode.startswith("I"):  # a PNG of 16 bits; `convert` would clip at 255
        return _upper_bytes(image)
    if image.mode == "F":
        raise ValueError(
            "its pixels are floats: scale them to 0 … 255 in a function of your own, "
            "module:function"
        )
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if "transparency" in image.info else "RGB")


def _upper_bytes(image: "Image") -> "Image":
    import numpy as np

    pixels = np.asarray(image)
    if pixels.dtype.itemsize > 2 and pixels.size and not 0 <= pixels.min() <= pixels.max() < 2**16:
        raise ValueError(
            f"its pixels are numbers from {pixels.min()} to {pixels.max()}, beyond 16 bits: scale "
            "them in a function of your own, module:function"
        )
    upper = pillow().fromarray((pixels >> 8).astype(np.uint8))
    upper.info = image.info
    return upper


def encode_image(image: "Image", form: str, *, quality: int = JPEG_QUALITY) -> bytes:
    """Return the image as a ``jpeg``, without alpha, or as a ``png``."""
    out = io.BytesIO()
    if form == "png":
        image.save(out, "PNG")
    else:
        without_alpha = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
        image.convert(without_alpha).save(out, "JPEG", quality=quality)
    return out.getvalue()


def image_from_array(array: "np.ndarray") -> "Image":
    """Return the image of an array (height, width[, channels]).

    Raises:
      ValueError: the array has another shape, or is neither uint8 nor floats in [0, 1].
    """
    if array.ndim == 3 and array.shape[2] in _MODES:
        mode = _MODES[array.shape[2]]
    elif array.ndim == 2:
        mode = "L"
    else:
        raise ValueError(
            f"an array of shape {list(array.shape)} is no image: give height × width, "
            "or height × width × 1 to 4 channels"
        )
    pixels = to_uint8(array)
    size = (array.shape[1], array.shape[0])
    return pillow().frombytes(mode, size, pixels.tobytes())


def to_uint8(array: "np.ndarray") -> "np.ndarray":
    """Return pixels as uint8; floats in [0, 1] are scaled to 0–255 and rounded.

    Raises:
      ValueError: floats outside [0, 1], or whole numbers outside 0–255.
    """
    import numpy as np

    if array.dtype == np.uint8:
        return array
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if array.dtype.kind == "f":
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
            raise ValueError(
                f"an image of floats from {low:g} to {high:g}: they must lie in [0, 1]; "
                "divide by 255, or give whole numbers"
            )
        return (np.clip(array, 0, 1).astype(np.float64) * 255).round().astype(np.uint8)
    if array.dtype.kind not in "iub" or low < 0 or high > 255:
        raise ValueError(f"an image of {array.dtype} from {low} to {high}: it must be in 0 to 255")
    return array.astype(np.uint8)


def image_to_array(image: "Image") -> "np.ndarray":
    """Return the pixels as uint8 (height, width, channels)."""
    import numpy as np

    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array
