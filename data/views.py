"""What of each picture is seen: drawn at random from what its record is.

A record's draws depend on (seed, epoch, the record's fingerprint) alone: not on its place in
a batch, the number of workers or threads, nor on timing. The draws are those of splitmix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), and what is
made of them uses the four basic operations only, which give the same bits everywhere.
"""

from typing import Final

import tensorflow as tf

from tenfold.data.augment import Augment

# A crop's sides are stretched by up to this against each other, squared: 0.77 to 1.31.
_STRETCH: Final = 8 / 7

_GAMMA: Final = 0x9E3779B97F4A7C15
_MIX: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_NUM_DRAWS: Final = 5


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
