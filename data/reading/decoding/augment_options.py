"""Options of the random crop and flip of training images; imports no numpy."""

from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import UserError

DEFAULT_MIN_SIDE: Final = 0.5


@dataclass(frozen=True)
class AugmentOptions:
    """Random changes to training images.

    Args:
      flip: mirror half of the images.
      min_side: crop each image to a window whose sides are `min_side` to 1 of the image's,
        before it is resized; None crops nothing.
    """

    flip: bool = False
    min_side: float | None = None

    def __post_init__(self) -> None:
        if self.min_side is not None and not 0 < self.min_side <= 1:
            raise UserError(f"augment: crop:{self.min_side} must be above 0 and at most 1")

    def __bool__(self) -> bool:
        return self.flip or self.min_side is not None


NO_AUGMENT: Final = AugmentOptions()


def parse_augment(text: str) -> AugmentOptions:
    """Return the options that ``flip``, ``crop``, ``flip,crop:0.3`` or an empty text names.

    Raises:
      UserError: an entry is none of these.
    """
    flip, min_side = False, None
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, colon, number = entry.partition(":")
        if entry == "flip":
            flip = True
        elif name == "crop":
            min_side = _parse_side(entry, number) if colon else DEFAULT_MIN_SIDE
        else:
            raise UserError(f"augment '{entry}' is none of flip, crop and crop:MIN_SIDE")
    return AugmentOptions(flip, min_side)


def _parse_side(entry: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise UserError(
            f"augment '{entry}': write crop:0.3 for windows of at least 0.3 of each side"
        ) from None
