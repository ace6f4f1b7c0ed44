"""``augment:copies=4``: altered copies of every training image, made once when writing."""

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tenfold.data.format.manifest import IMAGE
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.transforms.base import Draw, Values, each, open_pixels, text_key
from tenfold.data.transforms.options import number, parse_options, whole

if TYPE_CHECKING:
    from PIL.Image import Image

_REVISION: Final = 2
TRAIN: Final = "train"


class Augment:
    """Makes `copies` records of each image of the split ``train``; the first one unchanged.

    The others are, each by numbers of its own seed: a part of at least `crop` of the image's
    area, resized to the image's size; turned by up to `rotate` degrees; mirrored with
    probability `flip`; and changed in brightness, contrast and colour by a share of up to `color`.
    """

    splits: frozenset[str] | None = frozenset({TRAIN})

    def __init__(self, text: str) -> None:
        options = parse_options(text)
        options.expect_no_positional()
        read = options.read(
            {
                "copies": (whole(2, 1000), 2),
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

    def apply(self, records: list[Values], draws: list[Draw]) -> list[Values | UnusableRecord]:
        """Returns the copies."""
        return each(records, draws, self._one)

    def _one(self, record: Values, draw: Draw) -> Values:
        if draw.copy == 0:
            return record
        pixels = open_pixels(record)
        image = self._changed(pixels.image, draw.rng("augment"))
        return {**record, IMAGE: replace(pixels, image=image)}

    def _changed(self, image: "Image", rng: random.Random) -> "Image":
        from PIL.Image import Resampling, Transpose

        size = image.size
        image = image.resize(size, Resampling.BILINEAR, box=_part(size, self._crop, rng))
        angle = rng.uniform(-self._rotate, self._rotate)
        if self._rotate:
            image = _rotated(image, angle)
        if rng.random() < self._flip:
            image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        return _recolored(image, self._color, rng)


def _part(
    size: tuple[int, int], least_area: float, rng: random.Random
) -> tuple[float, float, float, float]:
    """Returns a random part of an image of `size`, of its proportions."""
    side = math.sqrt(rng.uniform(least_area, 1))
    width, height = size[0] * side, size[1] * side
    left, top = rng.uniform(0, size[0] - width), rng.uniform(0, size[1] - height)
    return left, top, left + width, top + height


def _rotated(image: "Image", angle: float) -> "Image":
    """Returns the image turned; corners are filled with its edge's mean colour."""
    from PIL import ImageStat
    from PIL.Image import Resampling

    edge = image.crop((0, 0, image.width, 1))
    fill = tuple(round(value) for value in ImageStat.Stat(edge).mean)
    return image.rotate(angle, Resampling.BILINEAR, fillcolor=fill if len(fill) > 1 else fill[0])


def _recolored(image: "Image", most: float, rng: random.Random) -> "Image":
    from PIL import ImageEnhance

    if not most or image.mode not in ("L", "RGB"):
        return image
    kinds = [ImageEnhance.Brightness, ImageEnhance.Contrast]
    if image.mode == "RGB":
        kinds.append(ImageEnhance.Color)
    for kind in kinds:
        image = kind(image).enhance(rng.uniform(1 - most, 1 + most))
    return image
