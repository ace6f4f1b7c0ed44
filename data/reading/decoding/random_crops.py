"""What of each image is seen: drawn at random from what its record is.

A record's draws depend on (seed, epoch, the record's fingerprint) alone: not on its place in
a batch, the number of workers or threads, nor on timing. The draws are those of splitmix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), and what is
made of them uses the four basic operations only, which give the same bits everywhere.
"""

from typing import Any, Final

import numpy as np

from tenfold.data.reading.decoding.augment_options import Augment

# A crop's sides are stretched by up to this against each other, squared: 0.77 to 1.31.
_STRETCH: Final = 8 / 7

_GAMMA: Final = 0x9E3779B97F4A7C15
_MIX: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_NUM_DRAWS: Final = 5


def random_crop_flip(augment: Augment, fingerprints: Any, *, seed: int, epoch: int) -> Any:
    """Returns float32 [n, 5], a view of each image: top, left, height, width, mirrored.

    The first four are shares of the image's height and width; mirrored is 0 or 1.
    `fingerprints` is int64 or uint64 [n].
    """
    scale_u, stretch_u, top_u, left_u, flip_u = _uniform(fingerprints.view(np.uint64), seed, epoch)
    one = np.float32(1)
    height = width = np.ones_like(scale_u)
    if augment.min_side is not None:
        least = np.float32(augment.min_side)
        scale = least + (one - least) * scale_u
        stretch = np.float32(1 / _STRETCH) + np.float32(_STRETCH - 1 / _STRETCH) * stretch_u
        height, width = np.minimum(scale * stretch, one), np.minimum(scale / stretch, one)
    mirrored = (flip_u < 0.5).astype(np.float32) if augment.flip else np.zeros_like(scale_u)
    return np.stack(
        [top_u * (one - height), left_u * (one - width), height, width, mirrored], axis=1
    )


def _uniform(fingerprints: Any, seed: int, epoch: int) -> list[Any]:
    """Returns independent float32 [n] draws from [0, 1)."""
    key = _mix(np.array([(seed + epoch * _GAMMA) % 2**64], np.uint64))
    state = _mix(fingerprints ^ key)
    draws = (_mix(state + np.uint64(_GAMMA * (at + 1) % 2**64)) for at in range(_NUM_DRAWS))
    # The upper 24 bits are what a float32 holds exactly.
    return [(draw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24) for draw in draws]


def _mix(value: Any) -> Any:
    """Returns splitmix64's finalizer of uint64 [n]; arrays wrap around in silence."""
    for shift, factor in _MIX:
        value = (value ^ value >> np.uint64(shift)) * np.uint64(factor)
    return value ^ value >> np.uint64(31)
