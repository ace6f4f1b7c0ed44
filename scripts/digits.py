"""Writes scikit-learn's 1,797 handwritten digits as PNG files, one folder per class.

python scripts/digits.py FOLDER
"""

import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder: Path) -> int:
    """Write ``folder/CLASS/NNNN.png``, 8 × 8 grey pixels; return the number of images."""
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if (
            not path.exists()
        ):  # its modification time is part of the fingerprint by which `write` resumes
            grey = (
                (image * (255 / 16)).round().astype("uint8")
            )  # the data set has values from 0 to 16
            Image.fromarray(grey).save(path)
    return len(digits.images)


if __name__ == "__main__":
    print(f"{write_digits(Path(sys.argv[1])):,} images in {sys.argv[1]}/")
