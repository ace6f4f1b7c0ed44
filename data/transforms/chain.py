"""Transforms by name, applied one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.format.manifest import IMAGE
from tenfold.data.runtime.user_code import names_user_object
from tenfold.data.sources.base import Encoded, UnusableRecord
from tenfold.data.sources.features import encode_features
from tenfold.data.transforms.base import DecodedImage, RecordSeed, Transform, Values, text_key
from tenfold.data.transforms.python_transforms import TransformLike, python_transform

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
    def copies(self) -> int:
        """Records made of each example; `parse_chain` allows one step that makes copies."""
        return max((step.copies for step in self.steps), default=1)

    def apply(
        self, records: Sequence[Values | UnusableRecord], seeds: Sequence[RecordSeed]
    ) -> list[Encoded | UnusableRecord]:
        """Transform and pack a batch.

        Args:
          records: Features by name, or the reason why the source has no record.
          seeds: The identity of each record.

        Returns:
          For each of `records`, in order, the packed record or the reason why there is none.

        Raises:
          UserError: a transform fails for all records.
        """
        current: list[Values | UnusableRecord] = list(records)
        for step in self.steps:
            usable = {
                index: record
                for index, record in enumerate(current)
                if not isinstance(record, UnusableRecord)
            }
            results = step.apply(list(usable.values()), [seeds[index] for index in usable])
            for index, result in zip(usable, results, strict=True):
                current[index] = result
        return [_pack(record) for record in current]


def _pack(record: Values | UnusableRecord) -> Encoded | UnusableRecord:
    if isinstance(record, UnusableRecord):
        return record
    try:
        return encode_features(_with_encoded_image(record))
    except UnusableRecord as error:
        return error


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
