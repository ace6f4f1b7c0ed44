"""The protocol of a transform, and the values and helpers that transforms use."""

import hashlib
import random
from collections.abc import Callable, Sequence
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
    """The identity of one output record, from which its random numbers follow.

    A record that is made again, by another run, process or machine, draws the same numbers.

    Attributes:
      example: Index of the example in the source.
      copy: Number of the copy of that example, from 0.
      seed: Seed of the whole write (``--shuffle_seed``).
      part: Place of the record in the list that an earlier transform made of the copy, a number
        for each transform that returned a list; () if none did.
    """

    example: int
    copy: int
    seed: int
    part: tuple[int, ...] = ()

    def rng(self, purpose: str) -> random.Random:
        """Return a random generator for one purpose, the same for the same record."""
        parts = "".join(f" {number}" for number in self.part)
        return random.Random(f"{purpose} {self.seed} {self.example} {self.copy}{parts}")


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image on its way between transforms, and the format to store it in.

    Attributes:
      pixels: The image as Pillow holds it.
      format: ``jpeg`` or ``png``.
      quality: JPEG quality, 1 to 100.
      changes: What its conversion has lost, one remark each.
    """

    pixels: "Image"
    format: str
    quality: int = 90
    changes: tuple[str, ...] = ()


# What a transform makes of a record: a record; a reason why there is none; None, to leave it out;
# or a list of these, as many as it likes.
Outcome: TypeAlias = "Values | UnusableRecord | list[Values | UnusableRecord | None] | None"


class Transform(Protocol):
    """One step on the way from the records of a source to the stored ones.

    A transform is built in the process that plans the write. It is then pickled and sent to each
    writing process, which calls `apply` with batches of up to 32 records. One object is never
    called by two threads at once. So a transform:

    - must pickle without models, open files or loaded modules: load them on first use in each
      process, and drop them in ``__getstate__``;
    - must give each record a result that depends on the record and its `RecordSeed` only, not on
      the other records of the batch: a resumed write, or one with more processes, must produce
      the same bytes. All randomness comes from `RecordSeed.rng`;
    - returns an `UnusableRecord` in the place of a record that it cannot transform, and
      ``--on_bad_record`` decides between failing and skipping. It raises UserError for a mistake
      that affects all records, which ends the write;
    - may choose: None in the place of a record leaves it out, and a list puts all its records
      there, each with its own `RecordSeed.part`. An empty list leaves the record out, too.

    Attributes:
      key: Changes whenever code, parameters or weights change the result. It is stored with the
        shards, so that a resumed write never mixes two versions of a transform.
      copies: Records made of each example, at least 1.
      splits: Names of the splits that the transform applies to; None for all.
    """

    @property
    def key(self) -> str:
        """See the attributes of this class."""
        ...

    @property
    def copies(self) -> int:
        """See the attributes of this class."""
        ...

    @property
    def splits(self) -> frozenset[str] | None:
        """See the attributes of this class."""
        ...

    def apply(self, records: list[Values], seeds: list[RecordSeed]) -> Sequence[Outcome]:
        """Transform a batch.

        Args:
          records: Features by name. The feature ``image`` holds encoded bytes or a numpy array,
            as the source or the transform before gives it, or a `DecodedImage`;
            `decode_record_image` takes all three.
          seeds: The identity of each record.

        Returns:
          For each of `records`, in order, the new record, the reason why there is none, None, or
          a list.
        """


def apply_to_each(
    records: list[Values], seeds: list[RecordSeed], apply: Callable[[Values, RecordSeed], Values]
) -> list[Values | UnusableRecord]:
    """Return `apply(record, seed)` for each record; a ValueError makes it an UnusableRecord."""
    results: list[Values | UnusableRecord] = []
    for record, seed in zip(records, seeds, strict=True):
        try:
            results.append(apply(record, seed))
        except UserError:  # a ValueError too, but a mistake that affects all records
            raise
        except ValueError as error:
            results.append(UnusableRecord(str(error)))
    return results


def decode_record_image(
    record: Values, *, at_least: tuple[int, int] | None = None
) -> DecodedImage:
    """Return the image of a record, decoded if it is not yet.

    Args:
      record: Features by name.
      at_least: (height, width) that suffice, as in `decode_image`.

    Raises:
      UserError: the records have no image.
      ValueError: the image cannot be decoded.
    """
    from tenfold.data.format.image_codec import decode_any_image, image_from_array

    value: Any = record.get(IMAGE)
    if isinstance(value, DecodedImage):
        return value
    if isinstance(value, bytes):
        pixels, changes = decode_any_image(value, at_least=at_least)
        return DecodedImage(pixels, image_format(value) or "png", changes=changes)
    if hasattr(value, "dtype"):
        return DecodedImage(image_from_array(value), "png")
    raise UserError(
        f"the transform needs the image of a record as its feature '{IMAGE}'; "
        f"there are: {', '.join(sorted(record))}"
    )


def plain_values(record: Values) -> Values:
    """Return a record for users' code: a decoded image is uint8 (height, width, channels)."""
    value = record.get(IMAGE)
    if not isinstance(value, DecodedImage):
        return dict(record)
    from tenfold.data.format.image_codec import image_to_array

    return {**record, IMAGE: image_to_array(value.pixels)}


def text_key(*parts: object) -> str:
    """Return a short hash of `parts`, for `Transform.key`."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
