"""The split that a training run is evaluated on, of its own shards or of others. Pure."""

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE, Feature, Manifest, Split
from tenfold.data.planning.splits.split_names import usual_split


def validation_split(
    trained: Manifest, name: str, *, other: Manifest | None = None, where: str = ""
) -> Split | None:
    """Return the split to evaluate on, or None if the shards of the training have none.

    Args:
      trained: the manifest of the shards that the run trains on.
      name: the name of the split.
      other: the manifest of the shards to evaluate on, if they are others. Their only split will
        do, whatever its name.
      where: the path of these shards, for errors.

    Raises:
      UserError: the other shards have several splits and none called `name`, or records of another
        kind than those of the training.
    """
    if other is None:
        return _find(trained, name)
    if trained.label_names != other.label_names:
        raise UserError(
            f"--validation_shards={where}: the classes are {_shown(other)}, those of the training "
            f"{_shown(trained)}: write both with one --classes, or both from one source"
        )
    ours, theirs = _kinds(trained), _kinds(other)
    if ours != theirs:
        differing = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
        raise UserError(
            f"--validation_shards={where}: feature '{differing[0]}' is "
            f"{theirs.get(differing[0], 'missing')} there, {ours.get(differing[0], 'missing')} in "
            "the shards of the training: write both in the same way"
        )
    found = _find(other, name)
    if found is not None:
        return found
    if len(other.splits) > 1:
        raise UserError(
            f"--validation_shards={where}: the splits are "
            f"{', '.join(split.name for split in other.splits)}, none is '{name}'"
        )
    return other.splits[0]


def _find(manifest: Manifest, name: str) -> Split | None:
    """Return the split called `name`; ``validation`` may be spelt in any usual way."""
    if manifest.has_split(name):
        return manifest.split(name)
    spelt = (split for split in manifest.splits if usual_split(split.name) == name)
    return next(spelt, None)


def _shown(manifest: Manifest) -> str:
    names = manifest.label_names
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "without names"


def _kinds(manifest: Manifest) -> dict[str, str]:
    return {feature.name: _kind(feature) for feature in manifest.features}


def _kind(feature: Feature) -> str:
    """Return what a reader needs to agree; images are resized to those of the training."""
    if feature.kind == IMAGE:
        return f"an image of {feature.shape[2] or 'several numbers of'} channels"
    return f"{feature.kind} {list(feature.shape)}"
