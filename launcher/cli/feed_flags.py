"""The flags that say what a model is fed: for `launch`, `evaluate`, `predict` and `bench`."""

import os
from functools import partial
from typing import Final

from absl import flags

from tenfold.data.reading.feeding.feed_options import FeedOptions, parse_defaults, parse_pad
from tenfold.launcher.cli.flags import FlagValues, in_group
from tenfold.models.model_registry import check_own_name

# The flags that make a `FeedOptions`.
OPTION_FLAGS: Final = (
    "inputs",
    "target",
    "weight_feature",
    "pad",
    "default",
    "mask",
    "boxes",
)


@in_group("Features")
def define_feed_flags(fv: FlagValues) -> None:
    """Define the flags."""
    text, names = partial(flags.DEFINE_string, flag_values=fv), partial(_define_list, fv)
    text(
        "map", "", "your own function from a dict of features to x, (x, y) or (x, y, weight), in "
        "the tf.data graph: module:function or file.py:function"
    )  # fmt: skip
    names("inputs", "features that the model is fed (default: all but targets and weight)")
    names("target", "features to predict (default: label); of several, y is a dict")
    text("weight_feature", "", "feature with the weight of each record")
    names(
        "pad", "lists that are cut and padded with zeros: NAME:50, or NAME:max for the longest; "
        "without it they are ragged"
    )  # fmt: skip
    names("default", "values of features that some records lack, NAME:VALUE, as age:0")
    names("mask", "images whose pixels are classes, as masks of a segmentation")
    names(
        "boxes", "features of shape [boxes, 4] that --augment moves with the image: top, left, "
        "bottom, right as shares of its sides"
    )  # fmt: skip


def _define_list(fv: FlagValues, name: str, help_text: str) -> None:
    flags.DEFINE_list(name, [], f"{help_text}; several with commas", flag_values=fv)


def feed_options(fv: FlagValues) -> FeedOptions:
    """Return the options that the flags give.

    Raises:
      UserError: a flag has a wrong value.
    """
    return FeedOptions(
        inputs=tuple(fv.inputs),
        target=tuple(fv.target) or None,
        weight_feature=fv.weight_feature,
        pad=parse_pad(fv.pad),
        default=parse_defaults(fv.default),
        masks=tuple(fv.mask),
        boxes=tuple(fv.boxes),
    )


def map_name(fv: FlagValues) -> str:
    """Return the name of the user's function; "" for none.

    Raises:
      UserError: there is no such file, or it defines no such function.
    """
    name: str = fv.map
    if name:
        check_own_name(name, working_dir=os.getcwd(), what="map")
    return name
