"""Random crops and flips of training pictures, drawn from what a record is.

A record's draws depend on (seed, epoch, the record's fingerprint) alone: not on its place in
a batch, the number of workers or threads, nor on timing. The draws are those of splitmix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), and what is
made of them uses the four basic operations only, which give the same bits everywhere.
"""

from dataclasses import dataclass
from typing import Final

import tensorflow as tf

from tenfold.data.errors import UserError

DEFAULT_MIN_SIDE: Final = 0.5
# A crop's sides are stretched by up to this against each other, squared: 0.77 to 1.31.
_STRETCH: Final = 8 / 7

_GAMMA: Final = 0x9E3779B97F4A7C15
_MIX: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_NUM_DRAWS: Final = 5


@dataclass(frozen=True)
class Augment:
    """What is done to training pictures at random.

    `flip` mirrors half of them. `min_side`, where set, cuts each to a window whose sides are
    `min_side` to 1 of the picture's, which is then resized.
    """

    flip: bool = False
    min_side: float | None = None

    def __post_init__(self) -> None:
        if self.min_side is not None and not 0 < self.min_side <= 1:
            raise UserError(f"augment: crop:{self.min_side} must be above 0 and at most 1")

    def __bool__(self) -> bool:
        return self.flip or self.min_side is not None


NO_AUGMENT: Final = Augment()


def parse_augment(text: str) -> Augment:
    """Returns what ``flip``, ``crop``, ``flip,crop:0.3`` or an empty text asks for.

    Raises:
      UserError: an entry is none of these.
    """
    flip, min_side = False, None
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = entry.partition(":")
        if entry == "flip":
            flip = True
        elif name == "crop":
            min_side = _side(entry, number)
        else:
            raise UserError(f"augment '{entry}' is none of flip, crop and crop:MIN_SIDE")
    return Augment(flip, min_side)


def _side(entry: str, number: str) -> float:
    try:
        return float(number) if number else DEFAULT_MIN_SIDE
    except ValueError:
        raise UserError(
            f"augment '{entry}': write crop:0.3 for windows of at least 0.3 of each side"
        ) from None


def draw_views(
    augment: Augment, fingerprints: tf.Tensor, *, seed: int, epoch: tf.Tensor
) -> tf.Tensor:
    """Returns float32 [n, 5], a view of each picture: top, left, height, width, mirrored.

    The first four are shares of the picture's height and width; mirrored is 0 or 1.
    `fingerprints` is int64 [n], `epoch` an int64 scalar.
    """
    scale_u, stretch_u, top_u, left_u, flip_u = _uniform(fingerprints, seed, epoch)
    ones = tf.ones_like(scale_u)
    height = width = ones
    if augment.min_side is not None:
        scale = augment.min_side + (1 - augment.min_side) * scale_u
        stretch = 1 / _STRETCH + (_STRETCH - 1 / _STRETCH) * stretch_u
        height, width = tf.minimum(scale * stretch, ones), tf.minimum(scale / stretch, ones)
    mirrored = tf.cast(flip_u < 0.5, tf.float32) if augment.flip else tf.zeros_like(ones)
    return tf.stack(
        [top_u * (ones - height), left_u * (ones - width), height, width, mirrored], axis=1
    )


def _uniform(fingerprints: tf.Tensor, seed: int, epoch: tf.Tensor) -> list[tf.Tensor]:
    """Returns independent float32 [n] draws from [0, 1)."""
    key = _mix(_u64(seed) + tf.bitcast(epoch, tf.uint64) * _u64(_GAMMA))
    state = _mix(tf.bitcast(fingerprints, tf.uint64) ^ key)
    draws = (_mix(state + _u64(_GAMMA * (at + 1))) for at in range(_NUM_DRAWS))
    # The upper 24 bits are what a float32 holds exactly.
    return [tf.cast(_shifted(draw, 40), tf.float32) * 2.0**-24 for draw in draws]


def _mix(value: tf.Tensor) -> tf.Tensor:
    for shift, factor in _MIX:
        value = (value ^ _shifted(value, shift)) * _u64(factor)
    return value ^ _shifted(value, 31)


def _shifted(value: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(value, _u64(bits))


def _u64(number: int) -> tf.Tensor:
    return tf.constant(number % 2**64, tf.uint64)
