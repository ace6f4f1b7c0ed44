"""``resize:224x224`` and ``encode:jpeg``: smaller images, made once instead of every epoch."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tenfold.data.errors import UserError
from tenfold.data.format.image_codec import FORMATS, JPEG_QUALITY
from tenfold.data.format.manifest import IMAGE
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.transforms.base import (
    RecordSeed,
    Values,
    apply_to_each,
    decode_record_image,
    text_key,
)
from tenfold.data.transforms.options import one_of, parse_options, whole_number
from tenfold.data.units import parse_image_size

if TYPE_CHECKING:
    from PIL.Image import Image

# Raise with any change of the result, so that a resumed write does not mix old and new records.
_REVISION: Final = 2


class Resize:
    """Resizes every image to height × width: stretched, or (fit=crop) its centre crop.

    Bilinear with antialiasing, as `tf.image.resize(antialias=True)`. The format, JPEG or PNG,
    stays; others become PNG.
    """

    copies = 1
    splits: frozenset[str] | None = None
    takes_any_image = True

    def __init__(self, text: str) -> None:
        options = parse_options(text)
        self._height, self._width = parse_image_size(options.positional, f"--transform={text}")
        read = options.read(
            {
                "fit": (one_of("stretch", "crop"), "stretch"),
                "quality": (whole_number(1, 100), JPEG_QUALITY),
            }
        )
        self._crop, self._quality = read["fit"] == "crop", read["quality"]
        self.key = text_key("resize", _REVISION, self._height, self._width, *read.values())

    def apply(
        self, records: list[Values], seeds: list[RecordSeed]
    ) -> list[Values | UnusableRecord]:
        """Return the records with resized images."""
        return apply_to_each(records, seeds, self._resize_record)

    def _resize_record(self, record: Values, seed: RecordSeed) -> Values:
        del seed
        image = decode_record_image(record, at_least=(self._height, self._width))
        pixels = self._resized(image.pixels)
        return {**record, IMAGE: replace(image, pixels=pixels, quality=self._quality)}

    def _resized(self, image: "Image") -> "Image":
        from PIL.Image import Resampling

        box = self._centre_box(image) if self._crop else None
        return image.resize((self._width, self._height), Resampling.BILINEAR, box=box)

    def _centre_box(self, image: "Image") -> tuple[float, float, float, float]:
        """Return the largest centred box (left, top, right, bottom) of the target's ratio."""
        scale = min(image.width / self._width, image.height / self._height)
        width, height = self._width * scale, self._height * scale
        left, top = (image.width - width) / 2, (image.height - height) / 2
        return left, top, left + width, top + height


class Encode:
    """Stores every image, of any format that Pillow opens, as ``jpeg`` (quality=90) or ``png``."""

    copies = 1
    splits: frozenset[str] | None = None
    takes_any_image = True

    def __init__(self, text: str) -> None:
        options = parse_options(text)
        if options.positional not in FORMATS:
            raise UserError(f"--transform={text}: write encode:jpeg or encode:png")
        self._format = options.positional
        read = options.read({"quality": (whole_number(1, 100), JPEG_QUALITY)})
        self._quality = read["quality"]
        self.key = text_key("encode", _REVISION, self._format, self._quality)

    def apply(
        self, records: list[Values], seeds: list[RecordSeed]
    ) -> list[Values | UnusableRecord]:
        """Return the records with decoded images that will be stored in the new format."""
        return apply_to_each(records, seeds, self._set_format)

    def _set_format(self, record: Values, seed: RecordSeed) -> Values:
        del seed
        image = replace(decode_record_image(record), format=self._format, quality=self._quality)
        return {**record, IMAGE: image}
