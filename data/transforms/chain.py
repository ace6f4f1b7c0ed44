"""Transforms by name, one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.format.manifest import IMAGE
from tenfold.data.runtime.user_code import names_user_object
from tenfold.data.sources.base import Encoded, UnusableRecord
from tenfold.data.sources.features import encode_features
from tenfold.data.transforms.base import RecordSeed, Pixels, Transform, Values, text_key

BUILT_IN: Final = {
    "resize": "tenfold.data.transforms.resize:Resize",
    "encode": "tenfold.data.transforms.resize:Encode",
    "augment": "tenfold.data.transforms.augment:Augment",
    "embed": "tenfold.data.transforms.embed:Embed",
}


def parse_transform(text: str) -> Transform:
    """Returns the transform that ``name:options`` or ``module:function`` names.

    Raises:
      UserError: there is none, or its options make no sense.
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
    """Transforms in order; an empty chain passes records through as they are."""

    steps: tuple[Transform, ...] = ()

    @property
    def key(self) -> str:
        """A hash of all steps; "" for none."""
        return text_key(*(step.key for step in self.steps)) if self.steps else ""

    def of_split(self, split: str) -> "Chain":
        """Returns the steps that apply to one split."""
        return Chain(tuple(s for s in self.steps if s.splits is None or split in s.splits))

    @property
    def copies(self) -> int:
        """Records made of each example."""
        made = [step.copies for step in self.steps if step.copies > 1]
        return made[0] if made else 1

    def apply(
        self, records: Sequence[Values | UnusableRecord], draws: Sequence[RecordSeed]
    ) -> list[Encoded | UnusableRecord]:
        """Returns every record transformed and packed, or why it cannot be."""
        current: list[Values | UnusableRecord] = list(records)
        for step in self.steps:
            good = [
                at for at, record in enumerate(current) if not isinstance(record, UnusableRecord)
            ]
            done = step.apply([current[at] for at in good], [draws[at] for at in good])  # type: ignore[misc]
            for at, record in zip(good, done, strict=True):
                current[at] = record
        return [_attempt(_packed, record) for record in current]


def _attempt(pack: Callable[[Values], Encoded], record: Values | UnusableRecord) -> Any:
    if isinstance(record, UnusableRecord):
        return record
    try:
        return pack(record)
    except UnusableRecord as error:
        return error


def _packed(record: Values) -> Encoded:
    value = record.get(IMAGE)
    if isinstance(value, Pixels):
        from tenfold.data.format.image_codec import encode_image

        data = encode_image(value.image, value.form, quality=value.quality)
        record = {**record, IMAGE: data}
    return encode_features(record)


def parse_chain(texts: Sequence[str]) -> Chain:
    """Returns the chain of transforms as the user wrote them.

    Raises:
      UserError: one is unknown or wrong, or two make copies.
    """
    chain = Chain(tuple(parse_transform(text) for text in texts))
    if sum(step.copies > 1 for step in chain.steps) > 1:
        raise UserError("only one --transform can make copies: raise the copies of the one")
    return chain
