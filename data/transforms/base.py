"""What a transform is: records in, records out, a key, and how many copies it makes."""

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tenfold.data.errors import UserError
from tenfold.data.format.image_header import image_format
from tenfold.data.format.manifest import IMAGE
from tenfold.data.sources.base import UnusableRecord

if TYPE_CHECKING:
    from PIL.Image import Image

Values: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class RecordSeed:
    """Which copy of which example a record is; `seed` is its own, wherever it is made."""

    example: int
    copy: int
    seed: int

    def rng(self, what: str) -> random.Random:
        """Returns random numbers for one use, the same for the same record."""
        return random.Random(f"{what} {self.seed} {self.example} {self.copy}")


@dataclass(frozen=True)
class Pixels:
    """A decoded image between transforms, and how it will be stored."""

    image: "Image"
    form: str
    quality: int = 90


class Transform(Protocol):
    """One step. `key` changes when its code, parameters or weights do; `copies` are made of each
    example of the splits in `splits` (None: of all), to which alone it applies.
    """

    key: str
    copies: int
    splits: frozenset[str] | None

    def apply(
        self, records: list[Values], draws: list[RecordSeed]
    ) -> list[Values | UnusableRecord]:
        """Returns each record transformed, or why it cannot be."""


def each(
    records: list[Values], draws: list[RecordSeed], apply: Any
) -> list[Values | UnusableRecord]:
    """Returns `apply(record, draw)` for each record; a ValueError makes it a bad record."""
    done: list[Values | UnusableRecord] = []
    for record, draw in zip(records, draws, strict=True):
        try:
            done.append(apply(record, draw))
        except UserError:  # wrong for all records, not for this one
            raise
        except ValueError as error:
            done.append(UnusableRecord(str(error)))
    return done


def open_pixels(record: Values, *, at_least: tuple[int, int] | None = None) -> Pixels:
    """Returns a record's image, decoded if it is not yet; `at_least` as in `decode_image`.

    Raises:
      UserError: the records have no image.
      ValueError: this one cannot be decoded.
    """
    from tenfold.data.format.image_codec import decode_image, image_from_array

    value: Any = record.get(IMAGE)
    if isinstance(value, Pixels):
        return value
    if isinstance(value, bytes):
        return Pixels(decode_image(value, at_least=at_least), image_format(value))
    if hasattr(value, "dtype"):
        return Pixels(image_from_array(value), "png")
    raise UserError(
        f"the transform needs the image of a record as its feature '{IMAGE}'; "
        f"there are: {', '.join(sorted(record))}"
    )


def plain_values(record: Values) -> Values:
    """Return a record for users' code: a decoded image is uint8 (height, width, channels)."""
    value = record.get(IMAGE)
    if not isinstance(value, Pixels):
        return dict(record)
    from tenfold.data.format.image_codec import image_to_array

    return {**record, IMAGE: image_to_array(value.image)}


def text_key(*parts: object) -> str:
    """Returns a short hash of `parts`."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
