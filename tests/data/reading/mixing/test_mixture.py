"""Mixtures of data sets: the same batches on any number of workers, passes, what is refused."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics, SplitStatistics
from tenfold.data.format.statistics.mixed_statistics import mixed_statistics
from tenfold.data.planning.mixture_shares import DataShare
from tenfold.data.reading.dataset import evaluation_dataset, steps_per_epoch, training_dataset
from tenfold.data.reading.feeding.feed_options import LONGEST, FeedOptions
from tenfold.data.reading.locating.batch_records import step_records
from tenfold.data.reading.mixing.mixed_batches import mixed_batches
from tenfold.data.reading.mixing.mixture import Mixture, open_mixture
from tenfold.data.reading.mixing.pass_counts import PassCounts
from tenfold.data.reading.mixing.pass_receipt import pass_receipt
from tenfold.data.reading.read_options import BEGINNING, Position, ReadOptions, WorkerPlace

# Records of the large set have ids below 1000, those of the small one from 1000 on.
LARGE, SMALL, BATCH, EPOCHS = 200, 45, 20, 3
FEATURES = (Feature("id", "int64"), Feature("label", "int64"), Feature("tokens", "int64", (None,)))
FIXED = (*FEATURES[:2], Feature("tokens", "int64", (3,)))
MakeShards = Callable[..., Path]


@pytest.fixture(scope="module")
def folders(
    write_shards: MakeShards, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DataShare, DataShare]:
    """Two data sets of 4 and 3 lanes, with shares 3 to 1; the lists of one have a fixed length."""
    root = tmp_path_factory.mktemp("mixture")

    def write(name: str, first: int, count: int, lanes: int, features: Sequence[Feature]) -> str:
        examples = [
            {"id": first + number, "label": number % 2, "tokens": [number] * 3}
            for number in range(count)
        ]
        return str(
            write_shards(
                root / name, examples, num_shards=2 * lanes, num_lanes=lanes, features=features,
                label_counts=(count - count // 2, count // 2), label_names=("no", "yes"),
            )
        )  # fmt: skip

    large, small = write("large", 0, LARGE, 4, FEATURES), write("small", 1000, SMALL, 3, FIXED)
    return DataShare(large, 3), DataShare(small, 1)


def mixture_of(
    folders: Sequence[DataShare], place: WorkerPlace | None = None, **options: Any
) -> Mixture:
    return open_mixture(
        folders,
        split="train",
        global_batch_size=BATCH,
        place=place or WorkerPlace(),
        options=ReadOptions(threads=2, shuffle_buffer_bytes=4_000, seed=3, **options),
    )


def parts_of(
    folders: Sequence[DataShare], num_workers: int, start: Position = BEGINNING
) -> list[tuple[Any, ...]]:
    """Return the parts of each step of all workers."""
    workers = [
        mixed_batches(
            mixture_of(folders, WorkerPlace(worker, num_workers)), start=start, epochs=EPOCHS
        )
        for worker in range(num_workers)
    ]
    return list(zip(*workers, strict=True))


def ids_of(steps: list[tuple[Any, ...]]) -> list[list[int]]:
    """Return the ids of each step, sorted."""
    return [sorted(int(n) for part in step for n in part.fed[0]["id"].numpy()) for step in steps]


def test_batches_are_equal_on_any_number_of_workers(folders: Sequence[DataShare]) -> None:
    data = mixture_of(folders)
    assert [member.global_batch_size for member in data.members] == [15, 5]
    whole = parts_of(folders, 1)
    ids = ids_of(whole)
    per_epoch = data.steps_per_epoch
    assert len(ids) == EPOCHS * per_epoch == EPOCHS * (LARGE // 15)
    assert all(sum(number >= 1000 for number in step) == 5 for step in ids)
    for epoch in range(EPOCHS):
        read = [
            number for step in ids[epoch * per_epoch : (epoch + 1) * per_epoch] for number in step
        ]
        assert max(Counter(number for number in read if number < 1000).values()) == 1
    # Nine steps are a pass over the small data set, across the ends of epochs.
    for begin in range(0, len(ids) - 9, 9):
        read = [n for step in ids[begin : begin + 9] for n in step if n >= 1000]
        assert len(set(read)) == SMALL
    on_three = parts_of(folders, 3)
    assert ids_of(on_three) == ids
    for step in on_three:
        shares = [float(part.share) * len(step) / 3 for part in step]
        sizes = [len(part.fingerprints) for part in step]
        assert shares == pytest.approx([size * 3 / BATCH for size in sizes])
    assert ids_of(parts_of(folders, 2, Position(1, 4))) == ids[per_epoch + 4 :]
    names = step_records(mixture_of(folders, WorkerPlace(0, 3)), Position(1, 4))
    assert Counter(name.partition("/")[0] for name in names) == {"large": 15, "small": 5}
    order = [int(n) for part in on_three[per_epoch + 4] for n in part.fed[0]["id"].numpy()]
    # Record i of a data set is the (i // shards)th of shard i % shards.
    assert [id_of(name) for name in names] == order


def id_of(name: str) -> int:
    data, _, record = name.partition("/")
    shard, index, first = int(record[6:11]), int(record.rpartition(" ")[2]), (0, 8)
    if data == "small":
        first = (1000, 6)
    return first[0] + shard + first[1] * index


def test_counts_prove_each_pass(folders: Sequence[DataShare]) -> None:
    data = mixture_of(folders)
    passes, ended = PassCounts(), 0
    for number, (part,) in enumerate(parts_of(folders, 1)):
        counts = part.counts.numpy().tolist()
        assert counts[0][0] == 15
        ends = (number + 1) % 9 == 0
        passes = passes.plus(counts[1], ends_pass=ends)
        ended += ends
    receipt = pass_receipt(data, 1, passes)
    assert (passes.passes, receipt.exact, receipt.records) == (ended, True, ended * SMALL)
    assert receipt.sentence() == (
        f"'small': 1.44 passes in this epoch; {ended * SMALL} of {ended * SMALL} records in those "
        "that ended, each read once"
    )
    again = passes.with_sums((*passes.sums[:3], ended * SMALL, 0, passes.finished[2] ^ 1))
    assert not pass_receipt(data, 1, again).exact
    assert (
        pass_receipt(data, 1, passes.next_epoch()).sentence().endswith("none of which has ended")
    )
    assert passes.next_epoch().current == passes.current


def test_scripts_read_a_mixture(folders: Sequence[DataShare]) -> None:
    text = ",".join(f"{each.folder}:{each.share}" for each in folders)
    assert steps_per_epoch(text, global_batch_size=BATCH) == 13
    dataset = training_dataset(text, global_batch_size=BATCH, place=WorkerPlace(), epochs=1)
    x, y = next(iter(dataset))
    assert (sorted(x), y.shape, x["tokens"].row_lengths().numpy().tolist()) == (
        ["id", "tokens"],
        (BATCH,),
        [3] * BATCH,
    )
    with pytest.raises(UserError, match="a mixture reads some several times"):
        training_dataset(text, global_batch_size=BATCH, place=WorkerPlace(), receipt=True)
    with pytest.raises(UserError, match="evaluation_dataset reads one data set"):
        evaluation_dataset(text, global_batch_size=BATCH, place=WorkerPlace())


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (FEATURES[:2], {}, "'other' has no feature 'tokens'"),
        ((*FEATURES, Feature("more", "float")), {}, "'large' has no feature 'more'"),
        ((*FEATURES[:2], Feature("tokens", "float", (None,))), {}, "'tokens' is int64 of shape"),
        (FEATURES, {"remainder": "pad"}, "each batch of a mixture has fixed shares"),
        (FEATURES, {"balance": "label"}, "--balance=label is not for mixtures"),
        (FEATURES, {"names": ("yes", "no")}, "class 0 is 'no' in 'large' and 'yes' in 'other'"),
        (FEATURES, {"names": ("no", "yes", "maybe")}, "has 2 classes and 'other' has 3"),
        (FEATURES, {"share": 0.01}, "which is no record of a batch of 20"),
    ],
)
def test_data_sets_that_do_not_fit_are_refused(
    folders: Sequence[DataShare], make_shards: MakeShards, features: Sequence[Feature],
    options: dict[str, Any], message: str,
) -> None:  # fmt: skip
    names, share = options.pop("names", ("no", "yes")), options.pop("share", 1.0)
    values: dict[str, Any] = {"id": 1, "label": 0, "tokens": [1, 2], "more": 0.5}
    found = {feature.name: values[feature.name] for feature in features}
    counts = (8, *[0] * (len(names) - 1))
    other = make_shards(
        [found] * 8, num_shards=2, num_lanes=1, features=features, name="other",
        label_counts=counts, label_names=names,
    )  # fmt: skip
    with pytest.raises(UserError, match=message):
        mixture_of([folders[0], DataShare(str(other), share)], **options)


def test_features_that_differ_can_be_left_out(
    folders: Sequence[DataShare], make_shards: MakeShards
) -> None:
    example = {"id": 1, "label": 0}
    other = make_shards(
        [example] * 8, num_shards=2, num_lanes=1, features=FEATURES[:2], name="other",
        label_counts=(8, 0), label_names=("no", "yes"),
    )  # fmt: skip
    data = mixture_of([folders[0], DataShare(str(other))], feed=FeedOptions(inputs=("id",)))
    assert next(iter(mixed_batches(data))).fed[0].shape == (BATCH,)


def test_statistics_are_those_of_the_mixture() -> None:
    def split(mean: float, std: float, longest: int) -> SplitStatistics:
        numbers = FeatureStatistics(
            "x", minimum=mean - 1, maximum=mean + 1, mean=mean, std=std, length=(1, 2.0, longest)
        )
        return SplitStatistics(10, (numbers,))

    mixed = mixed_statistics([(split(0.0, 1.0, 3), 15), (split(4.0, 1.0, 9), 5)])
    assert mixed is not None
    found = mixed.features[0]
    # Three quarters are 0 ± 1 and a quarter 4 ± 1: mean 1, variance 1 + 3/4 · 1 + 1/4 · 9.
    assert (found.minimum, found.maximum, found.mean) == (-1, 5, 1)
    assert found.std == pytest.approx(2.0)
    assert found.length == (1, 2.0, 9)
    assert mixed_statistics([(split(0.0, 1.0, 3), 1), (None, 1)]) is None


def test_lists_are_padded_to_the_longest_of_all(folders: Sequence[DataShare]) -> None:
    with pytest.raises(UserError, match="give a length, as --pad=tokens:50"):
        mixture_of(folders, feed=FeedOptions(pad={"tokens": LONGEST}))
    data = mixture_of(folders, feed=FeedOptions(pad={"tokens": 5}))
    assert next(iter(mixed_batches(data))).fed[0]["tokens"].shape == (BATCH, 5)
