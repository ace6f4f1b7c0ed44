"""Which features of the records a model is fed, and in which form: the user's choices.

Imports neither TensorFlow nor numpy, so that planning and the command line can build them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tenfold.data.errors import UserError

# A list is padded to the longest one of the data set.
LONGEST: Final = 0
# How --pad spells it.
_LONGEST_WORD: Final = "max"


@dataclass(frozen=True)
class FeedOptions:
    """Which features are read, which of them are targets and weights, and how they are shaped.

    Args:
      inputs: the features that the model is fed; () takes all that are neither target nor weight.
      target: the features that the model is to predict, y, () for none; None takes ``label`` where
        there is one. Of several, y is a dict by name.
      weight_feature: the feature with the weight of each record; "" for none.
      pad: lists of any length that become dense, by feature: each is cut or padded with zeros (or
        empty strings) to this many entries; LONGEST takes the longest list of the data set.
      default: the value of a feature in records that lack it, by feature. Optional lists need
        none: they are empty.
      masks: images whose pixels are classes: resized by nearest neighbour, colours unchanged,
        moved with the image by augmentation.
      boxes: features of shape [boxes, 4] that augmentation moves with the image: (top, left,
        bottom, right) as shares of the image's sides, 0 to 1.

    Raises:
      UserError: a length is negative, or one feature has two roles.
    """

    inputs: tuple[str, ...] = ()
    target: tuple[str, ...] | None = None
    weight_feature: str = ""
    pad: Mapping[str, int] = field(default_factory=dict)
    default: Mapping[str, Any] = field(default_factory=dict)
    masks: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, length in self.pad.items():
            if length < 0:
                raise UserError(f"pad: {name}:{length} cannot be below 0")
        for name in (*self.inputs, *(self.target or ())):
            if name == self.weight_feature:
                raise UserError(f"feature '{name}' is the weight: it cannot be fed to the model")

    @property
    def names(self) -> tuple[str, ...]:
        """Every feature that an option names."""
        weight = (self.weight_feature,) if self.weight_feature else ()
        named = (
            self.inputs,
            self.target or (),
            weight,
            self.pad,
            self.default,
            self.masks,
            self.boxes,
        )
        return tuple(dict.fromkeys(name for names in named for name in names))

    def roles(self, stored: Collection[str]) -> "FeedOptions":
        """Return the options with the inputs and the targets by name.

        Args:
          stored: the names of the features of the shards.
        """
        from tenfold.data.format.manifest import LABEL

        target = self.target
        if target is None:
            target = (LABEL,) if LABEL in stored and LABEL not in self.inputs else ()
        others = {*target, self.weight_feature}
        inputs = self.inputs or tuple(name for name in stored if name not in others)
        return replace(self, inputs=inputs, target=target)

    def inputs_only(self, stored: Collection[str]) -> "FeedOptions":
        """Return the options that feed a model the same inputs, and no targets."""
        inputs = self.roles(stored).inputs
        named = {*inputs}
        return replace(
            self,
            inputs=inputs,
            target=(),
            weight_feature="",
            pad={name: length for name, length in self.pad.items() if name in named},
            default={name: value for name, value in self.default.items() if name in named},
            masks=tuple(name for name in self.masks if name in named),
            boxes=tuple(name for name in self.boxes if name in named),
        )


DEFAULT_FEED: Final = FeedOptions()


def parse_pad(entries: Sequence[str]) -> dict[str, int]:
    """Return the lengths of ``NAME:50`` and ``NAME:max`` by feature.

    Raises:
      UserError: an entry has neither form.
    """
    lengths = {}
    for entry in entries:
        name, colon, length = entry.rpartition(":")
        if not (colon and name and (length == _LONGEST_WORD or length.isdecimal())) or (
            length.isdecimal() and int(length) < 1
        ):
            raise UserError(
                f"--pad={entry}: write NAME:50 for lists of 50 entries, or NAME:{_LONGEST_WORD} "
                "for the longest list of the data set"
            )
        lengths[name] = LONGEST if length == _LONGEST_WORD else int(length)
    return lengths


def parse_defaults(entries: Sequence[str]) -> dict[str, str]:
    """Return the values of ``NAME:VALUE`` by feature.

    Raises:
      UserError: an entry has another form.
    """
    defaults = {}
    for entry in entries:
        name, colon, value = entry.partition(":")
        if not (colon and name):
            raise UserError(f"--default={entry}: write NAME:VALUE, as age:0, or age:nan")
        defaults[name] = value
    return defaults
