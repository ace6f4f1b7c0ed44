"""``augment:copies=4``: altered copies of every training picture, made once when writing."""

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tenfold.data.format.manifest import IMAGE
from tenfold.data.sources.base import BadRecord
from tenfold.data.transforms.base import Draw, Values, each, open_pixels, text_key
from tenfold.data.transforms.options import number, parse_options, whole

if TYPE_CHECKING:
    from PIL.Image import Image

_REVISION: Final = 2
TRAIN: Final = "train"


class Augment:
    """Makes `copies` records of each picture of the split ``train``; the first one unchanged.

    The others are, each by numbers of its own seed: a part of at least `crop` of the picture's
    area, resized to the picture's size; turned by up to `rotate` degrees; mirrored with
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

    def apply(self, records: list[Values], draws: list[Draw]) -> list[Values | BadRecord]:
        """Returns the copies."""
        return each(records, draws, self._one)

    def _one(self, record: Values, draw: Draw) -> Values:
        if draw.copy == 0:
            return record
        pixels = open_pixels(record)
        picture = self._changed(pixels.picture, draw.rng("augment"))
        return {**record, IMAGE: replace(pixels, picture=picture)}

    def _changed(self, picture: "Image", rng: random.Random) -> "Image":
        from PIL.Image import Resampling, Transpose

        size = picture.size
        picture = picture.resize(size, Resampling.BILINEAR, box=_part(size, self._crop, rng))
        angle = rng.uniform(-self._rotate, self._rotate)
        if self._rotate:
            picture = _rotated(picture, angle)
        if rng.random() < self._flip:
            picture = picture.transpose(Transpose.FLIP_LEFT_RIGHT)
        return _recolored(picture, self._color, rng)


def _part(
    size: tuple[int, int], least_area: float, rng: random.Random
) -> tuple[float, float, float, float]:
    """Returns a random part of a picture of `size`, of its proportions."""
    side = math.sqrt(rng.uniform(least_area, 1))
    width, height = size[0] * side, size[1] * side
    left, top = rng.uniform(0, size[0] - width), rng.uniform(0, size[1] - height)
    return left, top, left + width, top + height


def _rotated(picture: "Image", angle: float) -> "Image":
    """Returns the picture turned; corners are filled with its edge's mean colour."""
    from PIL import ImageStat
    from PIL.Image import Resampling

    edge = picture.crop((0, 0, picture.width, 1))
    fill = tuple(round(value) for value in ImageStat.Stat(edge).mean)
    return picture.rotate(angle, Resampling.BILINEAR, fillcolor=fill if len(fill) > 1 else fill[0])


def _recolored(picture: "Image", most: float, rng: random.Random) -> "Image":
    from PIL import ImageEnhance

    if not most or picture.mode not in ("L", "RGB"):
        return picture
    kinds = [ImageEnhance.Brightness, ImageEnhance.Contrast]
    if picture.mode == "RGB":
        kinds.append(ImageEnhance.Color)
    for kind in kinds:
        picture = kind(picture).enhance(rng.uniform(1 - most, 1 + most))
    return picture
