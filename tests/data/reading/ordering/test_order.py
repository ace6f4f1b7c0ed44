"""A global batch holds the same records on any number of workers, from any start."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tenfold.data.format.manifest import Manifest
from tenfold.data.reading import batches as batches_module
from tenfold.data.reading.batches import (
    evaluation_batches,
    open_reader,
    raw_records,
    training_batches,
)
from tenfold.data.reading.dataset import evaluation_dataset, training_dataset
from tenfold.data.reading.ordering.order import lane_buffer_records
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_options import BEGINNING, Position, ReadOptions, WorkerPlace
from tenfold.data.reading.records.number_records import NumberRecordReader
from tenfold.data.storage.read_manifest import read_manifest

COUNT, LANES, BATCH = 331, 8, 24
STEPS = 13  # the shortest of 8 lanes has 41 records, 3 go into each batch
MakeShards = Callable[..., Path]


@pytest.fixture
def shards(make_id_shards: MakeShards) -> Path:
    """331 records in 16 shards, 8 lanes."""
    return make_id_shards(COUNT, num_shards=16, num_lanes=LANES)


def read_config(
    shards: Path,
    place: WorkerPlace = WorkerPlace(),  # noqa: B008 - frozen
    *,
    global_batch_size: int = BATCH,
    manifest: Manifest | None = None,
    **options: Any,
) -> ReadConfig:
    # 16 bytes a frame: a buffer of about 12 records a lane
    defaults = {"seed": 5, "shuffle_buffer_bytes": 12 * LANES * 50, "threads": 2}
    return ReadConfig(
        folder=str(shards),
        manifest=manifest or read_manifest(str(shards)),
        split="train",
        global_batch_size=global_batch_size,
        place=place,
        options=ReadOptions(**{**defaults, **options}),
    )


def flatten(batches: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


def read_ids(
    shards: Path,
    *,
    workers: int = 1,
    epochs: int = 1,
    start: Position = BEGINNING,
    **options: Any,
) -> list[list[int]]:
    """Return the ids of each global batch over all workers, sorted."""
    parts = []
    for worker in range(workers):
        config = read_config(shards, WorkerPlace(worker, workers), **options)
        dataset = training_batches(config, start=start, epochs=epochs)
        parts.append([batch.fed[0].numpy().tolist() for batch in dataset])
    assert len({len(part) for part in parts}) == 1, "workers have different numbers of steps"
    return [sorted(flatten(batch)) for batch in zip(*parts, strict=True)]


def test_batches_do_not_depend_on_the_number_of_workers(shards: Path) -> None:
    of_one = read_ids(shards, epochs=3)
    assert len(of_one) == 3 * STEPS
    assert all(len(batch) == BATCH for batch in of_one)
    for workers in (2, 4, 8):
        assert read_ids(shards, workers=workers, epochs=3) == of_one


def test_epochs_differ_and_repeat_no_record(shards: Path) -> None:
    batches = read_ids(shards, epochs=3)
    epochs = [batches[n * STEPS : (n + 1) * STEPS] for n in range(3)]
    for epoch in epochs:
        read = flatten(epoch)
        assert len(set(read)) == len(read) == STEPS * BATCH
    assert len({str(epoch) for epoch in epochs}) == 3
    left_out = [frozenset(range(COUNT)) - set(flatten(epoch)) for epoch in epochs]
    assert len(set(left_out)) == 3, "each epoch left out the same records"


def test_order_depends_on_the_seed_alone(shards: Path) -> None:
    expected = read_ids(shards)
    for threads in (1, 5):
        tf.random.set_seed(threads)
        assert read_ids(shards, threads=threads) == expected
    tf.random.set_seed(None)
    others = [read_ids(shards, seed=seed) for seed in (6, 5 + 2**40, 7)]
    assert len({str(batches) for batches in [expected, *others]}) == 4


@pytest.mark.parametrize(
    ("stop", "before", "after"), [(1, 1, 8), (6, 4, 2), (7, 8, 4), (12, 2, 1), (13, 2, 4)]
)
def test_run_resumes_on_another_number_of_workers(
    shards: Path, stop: int, before: int, after: int
) -> None:
    whole = read_ids(shards, epochs=3)
    first = read_ids(shards, workers=before, epochs=3)[: STEPS + stop]
    rest = read_ids(shards, workers=after, epochs=3, start=Position(1, stop))
    assert first + rest == whole
    epoch = flatten(first[STEPS:]) + flatten(rest[: STEPS - stop])
    assert len(set(epoch)) == len(epoch) == STEPS * BATCH


def test_replicas_share_their_workers_batch(shards: Path) -> None:
    config = read_config(shards, WorkerPlace(1, 2, replicas=3))
    parts = [b.fed[0].numpy().tolist() for b in training_batches(config, epochs=1)]
    assert [len(part) for part in parts] == [4] * (3 * STEPS)
    whole = read_config(shards, WorkerPlace(1, 2))
    batches = [b.fed[0].numpy().tolist() for b in training_batches(whole, epochs=1)]
    assert [flatten(parts[n : n + 3]) for n in range(0, 3 * STEPS, 3)] == batches


@pytest.mark.parametrize(("workers", "replicas", "start"), [(1, 1, 0), (4, 1, 9), (2, 2, 13)])
def test_tail_holds_the_leftover_records(
    shards: Path, workers: int, replicas: int, start: int
) -> None:
    records = total = left_out = 0
    for worker in range(workers):
        config = read_config(shards, WorkerPlace(worker, workers, replicas))
        tail = config.shards.tail_steps
        part = list(training_batches(config, start=Position(1, start), epochs=2, tail=True))
        assert len(part) == (STEPS - start + tail) * replicas
        if start == 0:
            records += sum(int((batch.fingerprints != 0).numpy().sum()) for batch in part)
            total += sum(int(batch.fingerprints.numpy().sum()) for batch in part)
        for batch in part[-tail * replicas :]:
            assert batch.fed[0].numpy().tolist() == [0] * int(config.mean_batch)
            left_out += int((batch.fingerprints != 0).numpy().sum())
    assert left_out == COUNT - STEPS * BATCH
    if start == 0:
        split = read_manifest(str(shards)).split("train")
        assert (records, total % 2**64) == (COUNT, split.fingerprint)


@pytest.mark.parametrize("remainder", ["drop", "pad", "repeat"])
@pytest.mark.parametrize("batch", [BATCH, 29, 5])
def test_any_number_of_workers_reads_the_same_batches(
    shards: Path, monkeypatch: pytest.MonkeyPatch, remainder: str, batch: int
) -> None:
    """Also from a start within an epoch, by record ids as by TensorFlow's own reading."""
    options: dict[str, Any] = {"global_batch_size": batch, "remainder": remainder, "epochs": 2}
    expected = read_ids(shards, **options)
    steps = read_config(shards, global_batch_size=batch, remainder=remainder).shards
    assert len(expected) == 2 * steps.steps_per_epoch
    epoch = flatten(expected[: steps.steps_per_epoch])
    if remainder != "drop":
        assert set(epoch) == set(range(COUNT))
        assert len(epoch) == COUNT + steps.repeated_records
    # TensorFlow's own reading takes five times as long to set up, so few workers read by it.
    for workers, start, by_id in (
        (3, 0, True),
        (8, steps.steps_per_epoch - 1, True),
        (3, 7, False),
    ):
        opened = partial(open_reader, by_id=by_id)
        monkeypatch.setattr(batches_module, "open_reader", opened)
        found = read_ids(shards, workers=workers, start=Position(0, start), **options)
        assert found == expected[start:], (workers, start, by_id)


@pytest.mark.parametrize(
    ("place", "by_id"), [(WorkerPlace(1, 3, replicas=2), False), (WorkerPlace(6, 7), True)]
)
def test_receipt_of_uneven_parts(
    shards: Path, monkeypatch: pytest.MonkeyPatch, place: WorkerPlace, by_id: bool
) -> None:
    """Fingerprints of repeated records are 0, and tails have what the steps left over."""
    if not by_id:
        monkeypatch.setattr(batches_module, "open_reader", partial(open_reader, by_id=False))
    split = read_manifest(str(shards)).split("train")
    for remainder in ("drop", "pad", "repeat"):
        records = total = 0
        shares: list[float] = []
        for worker in range(place.num_workers):
            config = read_config(
                shards, replace(place, index=worker), global_batch_size=29, remainder=remainder
            )
            for batch in training_batches(config, epochs=1, tail=True):
                records += int((batch.fingerprints != 0).numpy().sum())
                total += int(batch.fingerprints.numpy().sum())
                shares.append(float(batch.share))
        assert (records, total % 2**64) == (COUNT, split.fingerprint)
        parts = config.shards.steps_per_epoch * place.num_workers * place.replicas
        if remainder == "drop":  # the tails have shares too
            assert sum(shares) > parts
        else:
            assert sum(shares) == pytest.approx(parts)


def test_next_epoch_follows_the_tail(shards: Path) -> None:
    config = read_config(shards)
    tail = config.shards.tail_steps
    with_tail = [b.fed[0].numpy().tolist() for b in training_batches(config, epochs=2, tail=True)]
    plain = [b.fed[0].numpy().tolist() for b in training_batches(config, epochs=2)]
    assert with_tail[:STEPS] + with_tail[STEPS + tail : -tail] == plain


def test_resuming_parses_no_skipped_record(make_shards: MakeShards) -> None:
    examples = [{"id": number, "label": 0} for number in range(40)]
    whole = make_shards(examples, num_shards=2, num_lanes=2, name="whole")
    order = flatten(read_ids(whole, global_batch_size=4))
    # As long as the others, but without the feature 'id'.
    poisoned: list[dict[str, int]] = [
        {"ix": number, "label": number % 7} if number in order[:20] else examples[number]
        for number in range(40)
    ]
    shards = make_shards(poisoned, num_shards=2, num_lanes=2, name="poisoned")
    options: dict[str, Any] = {"global_batch_size": 4, "shuffle_buffer_bytes": 12 * LANES * 50}
    manifest = read_manifest(str(whole))
    skipped = read_ids(shards, start=Position(0, 5), manifest=manifest, **options)
    assert flatten(skipped) == order[20:]
    with pytest.raises(tf.errors.InvalidArgumentError):
        read_ids(shards, start=Position(0, 4), manifest=manifest, **options)


def test_later_epochs_trace_nothing(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    original = NumberRecordReader.read

    def counting(reader: NumberRecordReader, *args: Any) -> Any:
        traced.append(args)
        return original(reader, *args)

    monkeypatch.setattr(NumberRecordReader, "read", counting)
    iterator = iter(training_batches(read_config(shards), epochs=None))
    at_first = len(traced)
    for _ in range(5 * STEPS):
        next(iterator)
    assert at_first == len(traced) > 0


def test_truncated_shard_is_an_error(shards: Path) -> None:
    path = sorted(shards.glob("*.tfrecord"))[3]
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    path.write_bytes(data[: len(data) - (length + 16)])  # cut between two records
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"bytes, the manifest says"):
        read_ids(shards)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"bytes, the manifest says"):
        list(evaluation_batches(read_config(shards)))
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 21 elem"):
        list(raw_records(read_config(shards), epochs=1))


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_evaluation_reads_each_record_once(shards: Path, workers: int) -> None:
    ids: list[int] = []
    steps = set()
    for worker in range(workers):
        config = read_config(shards, WorkerPlace(worker, workers))
        part = list(evaluation_batches(config))
        steps.add(len(part))
        for batch in part:
            real = batch.present.numpy() > 0
            assert not batch.fingerprints.numpy()[~real].any()
            ids += batch.fed[0].numpy()[real].tolist()
    assert sorted(ids) == list(range(COUNT))
    assert steps == {14}


@pytest.mark.parametrize(
    ("buffer_bytes", "lanes", "mean", "records"),
    [(256_000_000, 4, 100_000.0, 640), (10, 4, 1000.0, 1), (0, 4, 0.0, 1), (4000, 4, 0.5, 1000)],
)
def test_shuffle_buffer_is_shared_by_the_lanes(
    buffer_bytes: int, lanes: int, mean: float, records: int
) -> None:
    assert lane_buffer_records(buffer_bytes, lanes, mean) == records


def test_autotune_is_off_because_it_can_stall(shards: Path) -> None:
    config = read_config(shards)
    for dataset in (
        training_batches(config),
        evaluation_batches(config),
        training_dataset(str(shards), global_batch_size=BATCH),
        evaluation_dataset(str(shards), global_batch_size=BATCH, split="train"),
    ):
        options = dataset.options()
        assert options.autotune.enabled is False
        assert options.threading.private_threadpool_size > 0
