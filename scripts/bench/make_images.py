"""Writes JPEG images for the reading benchmarks: crops of two photographs, in various sizes.

python scripts/bench/make_images.py FOLDER small|large COUNT

``small`` images have about 17 KB, ``large`` images about 110 KB. The photographs come with
scikit-learn (china.jpg and flower.jpg, 640 × 427).
"""

import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

# (height range, width range, JPEG quality)
KINDS = {
    "small": ((201, 281), (241, 341), 82),
    "large": ((371, 421), (511, 611), 97),
}
CLASSES = 10


def write_images(folder: Path, kind: str, count: int) -> int:
    """Write ``folder/CLASS/NNNNNN.jpg``; return their mean size in bytes."""
    heights, widths, quality = KINDS[kind]
    photographs = [Image.fromarray(array) for array in load_sample_images().images]
    rng = random.Random(f"images {kind}")
    total = 0
    for index in range(count):
        photograph = photographs[rng.randrange(len(photographs))]
        path = folder / str(index % CLASSES) / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        _random_crop(photograph, rng, heights, widths).save(path, quality=quality)
        total += path.stat().st_size
    return total // max(1, count)


def _random_crop(
    photograph: Image.Image,
    rng: random.Random,
    heights: tuple[int, int],
    widths: tuple[int, int],
) -> Image.Image:
    """Return a random crop with a random brightness."""
    height, width = rng.randrange(*heights), rng.randrange(*widths)
    left = rng.randrange(photograph.width - width + 1)
    top = rng.randrange(photograph.height - height + 1)
    crop = np.asarray(photograph.crop((left, top, left + width, top + height)), np.float32)
    return Image.fromarray(np.clip(crop * rng.uniform(0.7, 1.3), 0, 255).astype(np.uint8))


if __name__ == "__main__":
    folder, kind, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    print(f"{count:,} images of {write_images(folder, kind, count):,} bytes in {folder}/")
