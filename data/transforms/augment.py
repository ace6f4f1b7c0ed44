"""``augment:copies=4``: augmented copies of every training image, made once when writing."""

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.transforms.base import (
    RecordSeed,
    Values,
    apply_to_each,
    decode_record_image,
    text_key,
)
from tenfold.data.transforms.further_images import further_images
from tenfold.data.transforms.options import number, parse_options, whole_number

if TYPE_CHECKING:
    from PIL.Image import Image

# Raise with any change of the result, so that a resumed write does not mix old and new records.
_REVISION: Final = 2


class Augment:
    """Makes `copies` records of each image of the split ``train``; the first is unchanged.

    The others are, at random by their seeds: cropped to at least `crop` of the image's area and
    resized to the image's size; rotated by up to `rotate` degrees; mirrored with probability
    `flip`; and changed in brightness, contrast and colour by a factor within 1 ± `color`.
    """

    splits: frozenset[str] | None = frozenset({"train"})

    def __init__(self, text: str) -> None:
        options = parse_options(text)
        options.expect_no_positional()
        read = options.read(
            {
                "copies": (whole_number(2, 1000), 2),
                "flip": (number(0, 1), 0.5),
                "crop": (number(0.01, 1), 0.8),
                "rotate": (number(0, 180), 10.0),
                "color": (number(0, 1), 0.2),
            }
        )
        self.copies = int(read["copies"])
        self._flip, self._crop = read["flip"], read["crop"]
        self._rotate, self._color = read["rotate"], read["color"]
        self.key = text_key("augment", _REVISION, *read.values())

    def apply(
        self, records: list[Values], seeds: list[RecordSeed]
    ) -> list[Values | UnusableRecord]:
        """Return the records, augmented except for the first copy of each example."""
        return apply_to_each(records, seeds, self._augment_record)

    def _augment_record(self, record: Values, seed: RecordSeed) -> Values:
        if further := further_images(record):
            raise UserError(
                f"--transform=augment changes the feature '{IMAGE}' alone, and '{further[0]}' "
                "would no longer fit it: augment both in a function of your own, module:function"
            )
        if seed.copy == 0:
            return record
        image = decode_record_image(record)
        pixels = self._augment(image.pixels, seed.rng("augment"))
        return {**record, IMAGE: replace(image, pixels=pixels)}

    def _augment(self, image: "Image", rng: random.Random) -> "Image":
        from PIL.Image import Resampling, Transpose

        size = image.size
        image = image.resize(size, Resampling.BILINEAR, box=_random_box(size, self._crop, rng))
        angle = rng.uniform(-self._rotate, self._rotate)
        if self._rotate:
            image = _rotated(image, angle)
        if rng.random() < self._flip:
            image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        return _recolored(image, self._color, rng)


def _random_box(
    size: tuple[int, int], min_area: float, rng: random.Random
) -> tuple[float, float, float, float]:
    """Return a random box (left, top, right, bottom) with the aspect ratio of the image.

    Args:
      size: (width, height) of the image.
      min_area: Smallest share of the image's area, 0 to 1.
      rng: Random generator of the record.
    """
    side = math.sqrt(rng.uniform(min_area, 1))
    width, height = size[0] * side, size[1] * side
    left, top = rng.uniform(0, size[0] - width), rng.uniform(0, size[1] - height)
    return left, top, left + width, top + height


def _rotated(image: "Image", angle: float) -> "Image":
    """Return the image rotated; corners are filled with the mean colour of its top edge."""
    from PIL import ImageStat
    from PIL.Image import Resampling

    edge = image.crop((0, 0, image.width, 1))
    fill = tuple(round(value) for value in ImageStat.Stat(edge).mean)
    return image.rotate(angle, Resampling.BILINEAR, fillcolor=fill if len(fill) > 1 else fill[0])


def _recolored(image: "Image", max_change: float, rng: random.Random) -> "Image":
    from PIL import ImageEnhance

    if not max_change or image.mode not in ("L", "RGB"):
        return image
    kinds = [ImageEnhance.Brightness, ImageEnhance.Contrast]
    if image.mode == "RGB":
        kinds.append(ImageEnhance.Color)
    for kind in kinds:
        image = kind(image).enhance(rng.uniform(1 - max_change, 1 + max_change))
    return image
