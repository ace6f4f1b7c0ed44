"""Transforms by name, applied one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Final, NamedTuple, cast

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.format.manifest import IMAGE
from tenfold.data.runtime.user_code import names_user_object
from tenfold.data.sources.base import Encoded, UnusableRecord
from tenfold.data.sources.features import encode_features
from tenfold.data.transforms.base import (
    DecodedImage,
    Outcome,
    RecordSeed,
    Transform,
    Values,
    text_key,
)
from tenfold.data.transforms.python_transforms import TransformLike, python_transform

# Records per call of a transform, at most.
BATCH_RECORDS: Final = 32
BUILT_IN: Final = {
    "resize": "tenfold.data.transforms.resize:Resize",
    "encode": "tenfold.data.transforms.resize:Encode",
    "augment": "tenfold.data.transforms.augment:Augment",
    "embed": "tenfold.data.transforms.embed:Embed",
}


def parse_transform(text: str) -> Transform:
    """Return the transform that ``name:options`` or ``module:function`` describes.

    Raises:
      UserError: no transform has this name, or its options are invalid.
    """
    name = text.partition(":")[0]
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(import_module(module), attribute)(text)
    if names_user_object(text):
        from tenfold.data.transforms.user_function import UserFunction

        return UserFunction(text)
    choices = f"there are {', '.join(BUILT_IN)} and module:function"
    raise UserError(
        f"--transform={text}: unknown transform: {did_you_mean(name, BUILT_IN, otherwise=choices)}"
    )


@dataclass(frozen=True)
class Chain:
    """Transforms in order; an empty chain passes records through unchanged."""

    steps: tuple[Transform, ...] = ()

    @property
    def key(self) -> str:
        """A hash over the keys of all steps; "" for an empty chain."""
        return text_key(*(step.key for step in self.steps)) if self.steps else ""

    def of_split(self, split: str) -> "Chain":
        """Return the chain of the steps that apply to one split."""
        return Chain(tuple(s for s in self.steps if s.splits is None or split in s.splits))

    @property
    def takes_any_image(self) -> bool:
        """Whether the first step decodes all images, so that they may be of any format."""
        takes_any = [getattr(step, "takes_any_image", False) for step in self.steps[:1]]
        return any(takes_any) and self.steps[0].splits is None

    @property
    def copies(self) -> int:
        """Records made of each example; `parse_chain` allows one step that makes copies."""
        return max((step.copies for step in self.steps), default=1)

    def apply(
        self, records: Sequence[Values | UnusableRecord], seeds: Sequence[RecordSeed]
    ) -> list[list[Encoded | UnusableRecord]]:
        """Transform and pack a batch.

        Args:
          records: Features by name, or the reason why the source has no record.
          seeds: The identity of each record.

        Returns:
          For each of `records`, in order, the packed records that became of it or the reasons why
          there are none; an empty list for one that a transform has left out.

        Raises:
          UserError: a transform fails for all records.
        """
        current = [_Part(*part) for part in zip(range(len(records)), seeds, records, strict=True)]
        for step in self.steps:
            current = list(_apply_step(step, current))
        results: list[list[Encoded | UnusableRecord]] = [[] for _ in records]
        for part in current:
            results[part.origin].append(_pack(part.record))
        return results


class _Part(NamedTuple):
    """A record on its way through the chain; `origin` is its place in the batch."""

    origin: int
    seed: RecordSeed
    record: Values | UnusableRecord


def _apply_step(step: Transform, parts: Sequence[_Part]) -> Iterator[_Part]:
    """Yield what `step` makes of the usable parts, in their order, and the others as they are."""
    usable = [part for part in parts if not isinstance(part.record, UnusableRecord)]
    outcomes = _outcomes(step, usable)
    for part in parts:
        if isinstance(part.record, UnusableRecord):
            yield part
            continue
        outcome = next(outcomes)
        if not isinstance(outcome, list):
            if outcome is not None:
                yield part._replace(record=outcome)
            continue
        for number, record in enumerate(outcome):
            if record is not None:
                seed = replace(part.seed, part=(*part.seed.part, number))
                yield _Part(part.origin, seed, record)


def _outcomes(step: Transform, parts: Sequence[_Part]) -> Iterator[Outcome]:
    """Yield the step's outcome for each part; an earlier list may have made many of a record."""
    for first in range(0, len(parts), BATCH_RECORDS):
        batch = parts[first : first + BATCH_RECORDS]
        # Unusable records were sorted out by the caller.
        records = [cast(Values, part.record) for part in batch]
        yield from step.apply(records, [part.seed for part in batch])


def _pack(record: Values | UnusableRecord) -> Encoded | UnusableRecord:
    if isinstance(record, UnusableRecord):
        return record
    try:
        return replace(encode_features(_with_encoded_image(record)), changes=_changes(record))
    except UnusableRecord as error:
        return error


def _changes(record: Values) -> tuple[str, ...]:
    """Return what the conversion of the record's image loses."""
    image = record.get(IMAGE)
    if not isinstance(image, DecodedImage):
        return ()
    without_alpha = image.format == "jpeg" and image.pixels.mode in ("LA", "RGBA")
    return (*image.changes, *(("transparency was dropped",) if without_alpha else ()))


def _with_encoded_image(record: Values) -> Values:
    image = record.get(IMAGE)
    if not isinstance(image, DecodedImage):
        return record
    from tenfold.data.format.image_codec import encode_image

    return {**record, IMAGE: encode_image(image.pixels, image.format, quality=image.quality)}


def parse_chain(transforms: Sequence[TransformLike]) -> Chain:
    """Return the chain of transforms as the user gave them: texts, functions or objects.

    Raises:
      UserError: a transform is unknown or has invalid options, or two make copies.
    """
    chain = Chain(
        tuple(
            parse_transform(given) if isinstance(given, str) else python_transform(given)
            for given in transforms
        )
    )
    if sum(step.copies > 1 for step in chain.steps) > 1:
        raise UserError(
            "only one --transform can make copies: remove one, and raise the copies of the other"
        )
    return chain
