"""``resize:224x224`` and ``encode:jpeg``: images made smaller once, not in every epoch."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tenfold.data.errors import UserError
from tenfold.data.format.image_codec import FORMATS, JPEG_QUALITY
from tenfold.data.format.manifest import IMAGE
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.transforms.base import RecordSeed, Values, each, open_pixels, text_key
from tenfold.data.transforms.options import one_of, parse_options, whole
from tenfold.data.units import parse_image_size

if TYPE_CHECKING:
    from PIL.Image import Image

_REVISION: Final = 2


class Resize:
    """Resizes every image to height × width: stretched, or (fit=crop) its middle part.

    Bilinear with antialiasing, as `tf.image.resize(antialias=True)`. A JPEG stays a JPEG, a PNG
    a PNG.
    """

    copies = 1
    splits: frozenset[str] | None = None

    def __init__(self, text: str) -> None:
        options = parse_options(text)
        self._height, self._width = parse_image_size(options.positional, f"--transform={text}")
        read = options.read(
            {
                "fit": (one_of("stretch", "crop"), "stretch"),
                "quality": (whole(1, 100), JPEG_QUALITY),
            }
        )
        self._crop, self._quality = read["fit"] == "crop", read["quality"]
        self.key = text_key("resize", _REVISION, self._height, self._width, *read.values())

    def apply(
        self, records: list[Values], draws: list[RecordSeed]
    ) -> list[Values | UnusableRecord]:
        """Returns the records with resized images."""
        return each(records, draws, self._one)

    def _one(self, record: Values, draw: RecordSeed) -> Values:
        del draw
        pixels = open_pixels(record, at_least=(self._height, self._width))
        image = self._resized(pixels.image)
        return {**record, IMAGE: replace(pixels, image=image, quality=self._quality)}

    def _resized(self, image: "Image") -> "Image":
        from PIL.Image import Resampling

        box = self._middle(image) if self._crop else None
        return image.resize((self._width, self._height), Resampling.BILINEAR, box=box)

    def _middle(self, image: "Image") -> tuple[float, float, float, float]:
        """Returns the largest middle part of the target's proportions."""
        scale = min(image.width / self._width, image.height / self._height)
        width, height = self._width * scale, self._height * scale
        left, top = (image.width - width) / 2, (image.height - height) / 2
        return left, top, left + width, top + height


class Encode:
    """Stores every image as ``jpeg`` (quality=90) or ``png``, whatever it was."""

    copies = 1
    splits: frozenset[str] | None = None

    def __init__(self, text: str) -> None:
        options = parse_options(text)
        if options.positional not in FORMATS:
            raise UserError(f"--transform={text}: write encode:jpeg or encode:png")
        self._form = options.positional
        self._quality = options.read({"quality": (whole(1, 100), JPEG_QUALITY)})["quality"]
        self.key = text_key("encode", _REVISION, self._form, self._quality)

    def apply(
        self, records: list[Values], draws: list[RecordSeed]
    ) -> list[Values | UnusableRecord]:
        """Returns the records with their images decoded, to be stored in the new form."""
        return each(records, draws, self._one)

    def _one(self, record: Values, draw: RecordSeed) -> Values:
        del draw
        pixels = open_pixels(record)
        return {**record, IMAGE: replace(pixels, form=self._form, quality=self._quality)}
