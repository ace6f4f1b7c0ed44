"""How records of classes are weighed or repeated so that all classes count equally. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import LABEL, Feature, Manifest


@dataclass(frozen=True)
class Balance:
    """How often the records of each class are read.

    Args:
      feature: the class of a record.
      copies: the mean number of copies of a record in an epoch, by class.
    """

    feature: Feature
    copies: tuple[float, ...]


def class_weights(counts: Sequence[float]) -> tuple[float, ...]:
    """Return the weight of each class, n / (classes × n of the class), as scikit-learn's.

    Args:
      counts: the records of each class.

    Returns:
      A weight per class, 0 for one without records; their mean over the records is 1.
    """
    present = sum(count > 0 for count in counts)
    return tuple(sum(counts) / (present * count) if count else 0.0 for count in counts)


def find_balance(manifest: Manifest, split: str, name: str) -> Balance:
    """Return how --balance reads a split.

    Args:
      manifest: the manifest of the shards.
      split: name of the split.
      name: the feature with the class; only ``label``, whose classes the manifest counts.

    Raises:
      UserError: the classes of the feature are not known.
    """
    counts, feature = manifest.split(split).label_counts, manifest.feature(LABEL)
    if name != LABEL or feature is None or feature.optional or not counts:
        unknown = "" if counts else f", and split '{split}' has no class labels"
        raise UserError(
            f"--balance={name}: the manifest counts the classes of '{LABEL}' alone{unknown}; "
            "write the shards with --label_feature=NAME"
        )
    return Balance(feature, class_weights(counts))
