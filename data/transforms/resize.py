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
from tenfold.data.transforms.further_images import check_upright, with_further_images
from tenfold.data.transforms.options import one_of, parse_options, whole_number
from tenfold.data.units import parse_image_size

if TYPE_CHECKING:
    from PIL.Image import Image

# Raise with any change of the result, so that a resumed write does not mix old and new records.
_REVISION: Final = 3


class Resize:
    """Resizes every image to height × width: stretched, or (fit=crop) its centre crop.

    Bilinear with antialiasing, as `tf.image.resize(antialias=True)`. The format, JPEG or PNG,
    stays; others become PNG. Further images of a record are resized with it; those that may be
    masks, PNG files and arrays, keep their values: each pixel is the nearest one.
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
        """Return the records with all their images resized."""
        return apply_to_each(records, seeds, self._resize_record)

    def _resize_record(self, record: Values, seed: RecordSeed) -> Values:
        del seed
        size = self._height, self._width
        record = with_further_images(record, self._resized, at_least=size, quality=self._quality)
        image = decode_record_image(record, at_least=size)
        pixels = self._resized(image.pixels)
        return {**record, IMAGE: replace(image, pixels=pixels, quality=self._quality)}

    def _resized(self, image: "Image", *, smooth: bool = True) -> "Image":
        from PIL.Image import Resampling

        box = self._centre_box(image) if self._crop else None
        how = Resampling.BILINEAR if smooth else Resampling.NEAREST
        return image.resize((self._width, self._height), how, box=box)

    def _centre_box(self, image: "Image") -> tuple[float, float, float, float]:
        """Return the largest centred box (left, top, right, bottom) of the target's ratio."""
        scale = min(image.width / self._width, image.height / self._height)
        width, height = self._width * scale, self._height * scale
        left, top = (image.width - width) / 2, (image.height - height) / 2
        return left, top, left + width, top + height


class Encode:
    """Stores ``image``, of any format that Pillow opens, as ``jpeg`` (quality=90) or ``png``.

    Further images of a record stay as they are.
    """

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
        check_upright(record)
        image = replace(decode_record_image(record), format=self._format, quality=self._quality)
        return {**record, IMAGE: image}
