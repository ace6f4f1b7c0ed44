"""The split that a run is evaluated on, of its own shards or of others."""

from dataclasses import replace

import pytest

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature, Manifest, ShardInfo, Split, shard_name
from tenfold.data.planning.splits.validation_split import validation_split

FEATURES = (Feature("image", "image", (8, 8, 3)), Feature("label", "int64"))


def manifest(*names: str, features: tuple[Feature, ...] = FEATURES) -> Manifest:
    splits = tuple(Split(n, (ShardInfo(shard_name(n, 0, 1), 0, 0, 0, 0),)) for n in names)
    return Manifest(1, (1,), features, splits, label_names=("cat", "dog"))


def test_own_split_is_taken_if_there_is_one() -> None:
    assert validation_split(manifest("train"), "validation") is None
    found = validation_split(manifest("train", "validation"), "validation")
    assert found is not None
    assert found.name == "validation"


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("validation",), "validation"),
        (("train",), "train"),
        (("test", "validation"), "validation"),
    ],
)
def test_other_shards_give_their_split(names: tuple[str, ...], taken: str) -> None:
    """Even where the shards of the training have a validation split, and of any image size."""
    other = manifest(*names, features=(Feature("image", "image", (9, 7, 3)), FEATURES[1]))
    trained = manifest("train", "validation")
    found = validation_split(trained, "validation", other=other, where="b")
    assert found is other.split(taken)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (manifest("test", "train"), "b: the splits are test, train, none is 'validation'"),
        (replace(manifest("test"), label_names=("dog", "cat")), "the classes are dog, cat, those"),
        (replace(manifest("test"), label_names=()), "the classes are without names"),
        (manifest("test", features=FEATURES[:1]), "feature 'label' is missing there, int64"),
        (
            manifest("test", features=(Feature("image", "image", (8, 8, 1)), FEATURES[1])),
            "feature 'image' is an image of 1 channels there, an image of 3 channels in",
        ),
    ],
)
def test_shards_that_do_not_fit_are_refused(other: Manifest, words: str) -> None:
    with pytest.raises(UserError, match=words):
        validation_split(manifest("train"), "validation", other=other, where="b")
