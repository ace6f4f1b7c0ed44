"""Random crop and flip of each image: a pure function of (seed, epoch, record fingerprint).

The place in the batch, the number of workers or threads and timing have no influence. Draws are
splitmix64's (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014); the
crops follow from them by the four basic operations alone, which give the same bits everywhere.

A crop is five float32: top, left, height, width (shares of the image's height and width) and
mirrored (0 or 1).
"""

from typing import Any, Final

import numpy as np

from tenfold.data.reading.decoding.augment_options import AugmentOptions

# A crop's sides are stretched against each other by up to this factor, squared: 0.77 to 1.31.
_STRETCH: Final = 8 / 7

_GAMMA: Final = 0x9E3779B97F4A7C15
_MIX: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_NUM_DRAWS: Final = 5


def random_crop_flip(augment: AugmentOptions, fingerprints: Any, *, seed: int, epoch: int) -> Any:
    """Return a crop of each image, float32 [n, 5].

    Args:
      augment: what may be cropped and flipped.
      fingerprints: of the images' records, int64 or uint64 [n].
      seed: the run's seed.
      epoch: the epoch, from 0.
    """
    scale_u, stretch_u, top_u, left_u, flip_u = _uniform(fingerprints.view(np.uint64), seed, epoch)
    one = np.float32(1)
    height = width = np.ones_like(scale_u)
    if augment.min_side is not None:
        min_side = np.float32(augment.min_side)
        scale = min_side + (one - min_side) * scale_u
        stretch = np.float32(1 / _STRETCH) + np.float32(_STRETCH - 1 / _STRETCH) * stretch_u
        height, width = np.minimum(scale * stretch, one), np.minimum(scale / stretch, one)
    mirrored = (flip_u < 0.5).astype(np.float32) if augment.flip else np.zeros_like(scale_u)
    return np.stack(
        [top_u * (one - height), left_u * (one - width), height, width, mirrored], axis=1
    )


def _uniform(fingerprints: Any, seed: int, epoch: int) -> list[Any]:
    """Return independent float32 [n] draws from [0, 1)."""
    key = _mix(np.array([(seed + epoch * _GAMMA) % 2**64], np.uint64))
    state = _mix(fingerprints ^ key)
    draws = (_mix(state + np.uint64(_GAMMA * (draw + 1) % 2**64)) for draw in range(_NUM_DRAWS))
    # A float32 holds exactly 24 bits: the upper ones.
    return [(draw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24) for draw in draws]


def _mix(value: Any) -> Any:
    """Return splitmix64's finalizer of uint64 [n]; array arithmetic wraps without a warning."""
    for shift, factor in _MIX:
        value = (value ^ value >> np.uint64(shift)) * np.uint64(factor)
    return value ^ value >> np.uint64(31)
