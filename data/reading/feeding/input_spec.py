"""The features that are read of each record, and the shapes in which a model gets them. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.format.manifest import IMAGE, LABEL, Feature, Manifest
from tenfold.data.reading.feeding.feed_options import DEFAULT_FEED, LONGEST, FeedOptions

# Side in pixels of images that differ in size, where none is asked for.
DEFAULT_SIDE: Final = 224

_NUMBERS: Final[dict[str, Any]] = {"float": float, "int64": int}


@dataclass(frozen=True)
class InputSpec:
    """The features that are read, and what becomes of each.

    Attributes:
      features: the stored features that are read.
      image_shapes: (height, width, channels) of each image when it is decoded; a mask has the
        size of the image and one channel.
      num_classes: the classes of ``label``, if it is a target; else 0.
      targets: the features that the model is to predict, as it gets them.
      inputs: the features that the model is fed, as it gets them: lists that are padded have a
        fixed shape.
      weight_feature: the feature with the weight of each record; "" for none.
      lengths: the entries of each list that is padded.
      defaults: the value of each feature that some records lack.
      masks: the images whose pixels are classes.
      boxes: the features that move with the image.
    """

    features: tuple[Feature, ...]
    image_shapes: Mapping[str, tuple[int, int, int]]
    num_classes: int
    targets: tuple[Feature, ...] = ()
    inputs: tuple[Feature, ...] = ()
    weight_feature: str = ""
    lengths: Mapping[str, int] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    masks: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()

    @property
    def image(self) -> str:
        """The name of the first image that is no mask; "" without images.

        ``image`` comes first. The image fast path decodes it; masks and boxes are moved with it.
        """
        names = [name for name in self.image_shapes if name not in self.masks]
        return IMAGE if IMAGE in names else next(iter(names), "")

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """The shape of `image`; None without images."""
        return self.image_shapes.get(self.image)


def input_spec(
    manifest: Manifest,
    image_size: tuple[int, int] | None = None,
    feed: FeedOptions = DEFAULT_FEED,
    *,
    also: Iterable[str] = (),
) -> InputSpec:
    """Return what is read of shards with `manifest`.

    Images have one channel where all of them are grey, else three.

    Args:
      manifest: manifest of the shards.
      image_size: (height, width); None takes the size of an image where all have the same, else
        224 × 224.
      feed: the features that the model is fed, and how they are shaped.
      also: further features that are read.

    Raises:
      UserError: an option names a feature that does not exist or does not fit it, or a feature
        cannot be read as it is stored.
    """
    stored = {feature.name: feature for feature in manifest.features}
    for name in feed.names:
        if name not in stored:
            raise UserError(f"there is no feature '{name}': {did_you_mean(name, stored)}")
    feed = feed.roles(stored)
    inputs, targets = feed.inputs, feed.target or ()
    wanted = {*inputs, *targets, feed.weight_feature, *also}
    features = tuple(f for name, f in stored.items() if name in wanted)
    _check_options(feed, stored)
    lengths = {
        name: length if length != LONGEST else longest_list(manifest, stored[name])
        for name, length in feed.pad.items()
        if name in wanted
    }
    spec = InputSpec(
        features=features,
        image_shapes=_image_shapes(features, image_size, feed.masks),
        num_classes=manifest.num_classes if LABEL in targets else 0,
        weight_feature=feed.weight_feature,
        lengths=lengths,
        defaults={f.name: _default(f, feed.default) for f in features if _needs_default(f)},
        masks=tuple(name for name in feed.masks if name in wanted),
        boxes=tuple(name for name in feed.boxes if name in wanted),
    )
    for feature in features:
        _check_readable(feature)
    return replace(
        spec,
        targets=tuple(_as_fed(stored[name], spec) for name in targets),
        inputs=tuple(_as_fed(stored[name], spec) for name in inputs),
    )


def bucket_feature(manifest: Manifest, name: str) -> Feature:
    """Return the feature that --bucket names.

    Raises:
      UserError: there is none, or all records have the same length of it.
    """
    feature = manifest.feature(name)
    if feature is None:
        raise UserError(
            f"--bucket={name}: these shards have "
            f"{', '.join(feature.name for feature in manifest.features)}"
        )
    if feature.kind == IMAGE or not (
        is_ragged(feature) or feature.sequence or (feature.kind, feature.shape) == ("bytes", ())
    ):
        raise UserError(
            f"--bucket={name}: the feature is {feature.kind} of shape {list(feature.shape)}; "
            "buckets are made of lists of different lengths, or of texts"
        )
    return feature


def is_ragged(feature: Feature) -> bool:
    """Whether records hold different numbers of values of a feature, as they are stored."""
    return feature.kind != IMAGE and None in feature.shape


def _as_fed(feature: Feature, spec: InputSpec) -> Feature:
    """Return a feature with the shape that the model gets."""
    shape: tuple[int | None, ...] = feature.shape
    if feature.name in spec.lengths:
        shape = (spec.lengths[feature.name], *shape[1:])
    if feature.name in spec.image_shapes:
        shape = spec.image_shapes[feature.name]
    return replace(feature, shape=shape, optional=False)


def _needs_default(feature: Feature) -> bool:
    return feature.optional and not is_ragged(feature) and not feature.sequence


def _check_readable(feature: Feature) -> None:
    inner = feature.shape[1:] if feature.sequence else feature.shape
    if feature.kind != IMAGE and inner.count(None) > 1:
        raise UserError(
            f"feature '{feature.name}' has shape {_shown(feature.shape)}: where several "
            "dimensions differ, records do not hold the shape, only the values; write it with one "
            "such dimension (--transform), or leave it out (--inputs names the features to read)"
        )
    if feature.kind == IMAGE and not feature.sequence and feature.optional:
        raise UserError(
            f"image '{feature.name}' is missing in some records, and has no default: write "
            "without them (--missing=drop), or leave it out (--inputs names the features to read)"
        )


def _check_options(feed: FeedOptions, stored: Mapping[str, Feature]) -> None:
    for name in feed.pad:
        feature = stored[name]
        if feature.kind == IMAGE or feature.shape[:1] != (None,) or feature.shape.count(None) > 1:
            raise UserError(
                f"--pad: feature '{name}' has shape {_shown(feature.shape)}, and only lists whose "
                "first dimension alone differs between records can be padded"
            )
    for name in feed.masks:
        if stored[name].kind != IMAGE or stored[name].sequence:
            raise UserError(f"--mask={name}: the feature is {stored[name].kind}, not an image")
    for name in feed.boxes:
        if stored[name].kind != "float" or stored[name].shape[-1:] != (4,):
            raise UserError(
                f"--boxes={name}: the feature is {stored[name].kind} of shape "
                f"{_shown(stored[name].shape)}, not float of shape [boxes, 4]"
            )
    weight = stored.get(feed.weight_feature)
    if weight is not None and (weight.kind not in _NUMBERS or weight.shape != ()):
        raise UserError(
            f"--weight_feature={weight.name}: the feature is {weight.kind} of shape "
            f"{_shown(weight.shape)}, not one number a record"
        )


def _image_shapes(
    features: Iterable[Feature], size: tuple[int, int] | None, masks: tuple[str, ...]
) -> dict[str, tuple[int, int, int]]:
    images = [f for f in features if f.kind == IMAGE and not f.sequence]
    shapes = {f.name: _image_shape(f, size) for f in images if f.name not in masks}
    main = shapes.get(IMAGE) or next(iter(shapes.values()), None)
    for feature in images:
        if feature.name in masks:
            shapes[feature.name] = (*(main or _image_shape(feature, size))[:2], 1)
    return {feature.name: shapes[feature.name] for feature in images}


def _image_shape(feature: Feature, size: tuple[int, int] | None) -> tuple[int, int, int]:
    height, width, channels = feature.shape if len(feature.shape) == 3 else (None, None, None)
    if size is None:
        size = (height, width) if height and width else (DEFAULT_SIDE, DEFAULT_SIDE)
    return (*size, 1 if channels == 1 else 3)


def _default(feature: Feature, defaults: Mapping[str, Any]) -> Any:
    """Return the value that stands for a feature which a record lacks."""
    if feature.name not in defaults:
        example = "unknown" if feature.kind == "bytes" else "0"
        raise UserError(
            f"feature '{feature.name}' is missing in some records: give their value, as "
            f"--default={feature.name}:{example}, or leave it out (--inputs names the features "
            "to read), or write again with --missing=zero, nan or drop"
        )
    value, parse = defaults[feature.name], _NUMBERS.get(feature.kind, str)
    try:
        return parse(value)
    except (ValueError, TypeError):
        raise UserError(
            f"--default={feature.name}:{value}: the feature is {feature.kind}"
        ) from None


def longest_list(manifest: Manifest, feature: Feature) -> int:
    """Return the entries of the longest list over all splits."""
    longest = 0
    for split in manifest.splits:
        statistics = split.statistics
        found = statistics.feature(feature.name) if statistics else None
        # Lengths of text count bytes, and the statistics of a large split are of a sample.
        is_whole = statistics is not None and statistics.records >= split.num_records
        if not (found and found.length and is_whole and feature.kind in _NUMBERS):
            raise UserError(
                f"--pad={feature.name}:max: the manifest does not know the longest list of split "
                f"'{split.name}': give a length, as --pad={feature.name}:50"
            )
        longest = max(longest, found.length[2])
    return max(1, longest // math.prod(size or 1 for size in feature.shape[1:]))


def _shown(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
