"""What a global batch holds: the same records whoever reads them, and from wherever."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.reading import graph_records as graph_batches
from tenfold.data.reading.batches import FINGERPRINT, evaluation_batches, training_batches
from tenfold.data.reading.dataset import steps_per_epoch, worker_dataset
from tenfold.data.reading.graph_records import input_spec
from tenfold.data.reading.order import BEGINNING, Position, lane_buffer_records
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.storage.read_manifest import read_manifest

COUNT, LANES, BATCH = 331, 8, 24
STEPS = 13  # the shortest of 8 lanes has 41 records, 3 go into each batch
MakeShards = Callable[..., Path]


@pytest.fixture
def shards(make_id_shards: MakeShards) -> Path:
    """331 records in 16 shards, 8 lanes."""
    return make_id_shards(COUNT, num_shards=16, num_lanes=LANES)


def read_config(shards: Path, **options: Any) -> ReadConfig:
    manifest = options.pop("manifest_of", None) or read_manifest(str(shards))
    given = {"global_batch_size": BATCH, "num_workers": 1, "worker": 0, "seed": 5}
    # 16 bytes a frame: a buffer of about 12 records a lane
    given |= {"shuffle_buffer_bytes": 12 * LANES * 50, "threads": 2}
    return ReadConfig(
        folder=str(shards),
        manifest=manifest,
        split="train",
        spec=input_spec(manifest),
        **{**given, **options},
    )


def flat(batches: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


def read_ids(
    shards: Path,
    *,
    workers: int = 1,
    epochs: int = 1,
    start: Position = BEGINNING,
    **options: Any,
) -> list[list[int]]:
    """Returns the ids of each global batch over all workers, sorted."""
    parts = []
    for worker in range(workers):
        config = read_config(shards, num_workers=workers, worker=worker, **options)
        dataset = training_batches(config, start=start, epochs=epochs)
        parts.append([batch["id"].numpy().tolist() for batch in dataset])
    assert len({len(part) for part in parts}) == 1, "workers have different numbers of steps"
    return [sorted(flat(batch)) for batch in zip(*parts, strict=True)]


def test_batches_do_not_depend_on_the_number_of_workers(shards: Path) -> None:
    of_one = read_ids(shards, epochs=3)
    assert len(of_one) == 3 * STEPS
    assert all(len(batch) == BATCH for batch in of_one)
    for workers in (2, 4, 8):
        assert read_ids(shards, workers=workers, epochs=3) == of_one


def test_an_epoch_reads_no_record_twice_and_epochs_differ(shards: Path) -> None:
    batches = read_ids(shards, epochs=3)
    epochs = [batches[at * STEPS : (at + 1) * STEPS] for at in range(3)]
    for epoch in epochs:
        read = flat(epoch)
        assert len(set(read)) == len(read) == STEPS * BATCH
    assert len({str(epoch) for epoch in epochs}) == 3
    left_out = [frozenset(range(COUNT)) - set(flat(epoch)) for epoch in epochs]
    assert len(set(left_out)) == 3, "each epoch left out the same records"


def test_the_order_depends_on_the_seed_alone(shards: Path) -> None:
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
def test_a_run_goes_on_with_another_number_of_workers(
    shards: Path, stop: int, before: int, after: int
) -> None:
    whole = read_ids(shards, epochs=3)
    first = read_ids(shards, workers=before, epochs=3)[: STEPS + stop]
    rest = read_ids(shards, workers=after, epochs=3, start=Position(1, stop))
    assert first + rest == whole
    epoch = flat(first[STEPS:]) + flat(rest[: STEPS - stop])
    assert len(set(epoch)) == len(epoch) == STEPS * BATCH


def test_replicas_share_what_their_worker_reads(shards: Path) -> None:
    config = read_config(shards, num_workers=2, worker=1, replicas=3)
    parts = [b["id"].numpy().tolist() for b in training_batches(config, epochs=1)]
    assert [len(part) for part in parts] == [4] * (3 * STEPS)
    whole = read_config(shards, num_workers=2, worker=1)
    batches = [b["id"].numpy().tolist() for b in training_batches(whole, epochs=1)]
    assert [flat(parts[at : at + 3]) for at in range(0, 3 * STEPS, 3)] == batches


@pytest.mark.parametrize(("workers", "replicas", "start"), [(1, 1, 0), (4, 1, 9), (2, 2, 13)])
def test_the_tail_holds_what_the_steps_leave_out(
    shards: Path, workers: int, replicas: int, start: int
) -> None:
    records = total = left_out = 0
    for worker in range(workers):
        config = read_config(shards, num_workers=workers, worker=worker, replicas=replicas)
        tail = config.shards(drop_remainder=True).tail_steps
        part = list(training_batches(config, start=Position(1, start), epochs=2, tail=True))
        assert len(part) == (STEPS - start + tail) * replicas
        if start == 0:
            records += sum(int((batch[FINGERPRINT] != 0).numpy().sum()) for batch in part)
            total += sum(int(batch[FINGERPRINT].numpy().sum()) for batch in part)
        for batch in part[-tail * replicas :]:
            assert batch["id"].numpy().tolist() == [0] * config.replica_batch
            left_out += int((batch[FINGERPRINT] != 0).numpy().sum())
    assert left_out == COUNT - STEPS * BATCH
    if start == 0:
        split = read_manifest(str(shards)).split("train")
        assert (records, total % 2**64) == (COUNT, split.fingerprint)


def test_a_later_epoch_follows_the_tail(shards: Path) -> None:
    config = read_config(shards)
    tail = config.shards(drop_remainder=True).tail_steps
    with_tail = [b["id"].numpy().tolist() for b in training_batches(config, epochs=2, tail=True)]
    plain = [b["id"].numpy().tolist() for b in training_batches(config, epochs=2)]
    assert with_tail[:STEPS] + with_tail[STEPS + tail : -tail] == plain


def test_going_on_does_not_parse_what_it_skips(make_shards: MakeShards) -> None:
    examples = [{"id": number, "label": 0} for number in range(40)]
    whole = make_shards(examples, num_shards=2, num_lanes=2, name="whole")
    order = flat(read_ids(whole, global_batch_size=4))
    poisoned = [{} if number in order[:20] else examples[number] for number in range(40)]
    shards = make_shards(poisoned, num_shards=2, num_lanes=2, name="poisoned")
    options: dict[str, Any] = {"global_batch_size": 4, "shuffle_buffer_bytes": 12 * LANES * 50}
    manifest = read_manifest(str(whole))
    skipped = read_ids(shards, start=Position(0, 5), manifest_of=manifest, **options)
    assert flat(skipped) == order[20:]
    with pytest.raises(tf.errors.InvalidArgumentError):
        read_ids(shards, start=Position(0, 4), manifest_of=manifest, **options)


def test_later_epochs_trace_nothing(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    original = graph_batches.fingerprint

    def counting(records: tf.Tensor) -> tf.Tensor:
        traced.append(records)
        return original(records)

    monkeypatch.setattr(graph_batches, "fingerprint", counting)
    iterator = iter(training_batches(read_config(shards), epochs=None))
    at_first = len(traced)
    for _ in range(5 * STEPS):
        next(iterator)
    assert at_first == len(traced) > 0


def test_a_shard_that_ends_early_is_told(shards: Path) -> None:
    path = sorted(shards.glob("*.tfrecord"))[3]
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    path.write_bytes(data[: len(data) - (length + 16)])  # cut between two records
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 21 elem"):
        read_ids(shards)
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 21 elem"):
        list(evaluation_batches(read_config(shards)))


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_evaluation_reads_each_record_once(shards: Path, workers: int) -> None:
    ids: list[int] = []
    steps = set()
    for worker in range(workers):
        config = read_config(shards, num_workers=workers, worker=worker)
        part = list(evaluation_batches(config))
        steps.add(len(part))
        for batch in part:
            real = batch["weight"].numpy() > 0
            assert not batch[FINGERPRINT].numpy()[~real].any()
            ids += batch["id"].numpy()[real].tolist()
    assert sorted(ids) == list(range(COUNT))
    assert steps == {14}


@pytest.mark.parametrize(
    ("buffer_bytes", "lanes", "mean", "records"),
    [(256_000_000, 4, 100_000.0, 640), (10, 4, 1000.0, 1), (0, 4, 0.0, 1), (4000, 4, 0.5, 1000)],
)
def test_the_shuffle_buffer_is_shared_by_the_lanes(
    buffer_bytes: int, lanes: int, mean: float, records: int
) -> None:
    assert lane_buffer_records(buffer_bytes, lanes, mean) == records


# --- worker_dataset ---


def public_ids(shards: Path, **options: Any) -> list[list[int]]:
    given = {"global_batch_size": BATCH, "epochs": 1, "seed": 5, "threads": 2}
    dataset = worker_dataset(str(shards), **{**given, **options})
    return [x.numpy().tolist() for x, _ in dataset]


def test_the_place_comes_from_tf_config_or_the_context_or_the_arguments(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = public_ids(shards, num_workers=2, worker_index=1)
    context = tf.distribute.InputContext(
        num_input_pipelines=2, input_pipeline_id=1, num_replicas_in_sync=2
    )
    assert public_ids(shards, context=context) == by_hand
    assert public_ids(shards) != by_hand
    monkeypatch.setenv(
        "TF_CONFIG",
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}',
    )
    assert public_ids(shards) == by_hand


def test_a_context_with_several_replicas(shards: Path) -> None:
    context = tf.distribute.InputContext(
        num_input_pipelines=2, input_pipeline_id=0, num_replicas_in_sync=4
    )
    assert {len(batch) for batch in public_ids(shards, context=context)} == {BATCH // 4}


def test_steps_per_epoch(shards: Path) -> None:
    assert steps_per_epoch(str(shards), global_batch_size=BATCH) == STEPS
    assert len(public_ids(shards)) == STEPS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 2}, "belong together"),
        ({"num_workers": 2, "worker_index": 2}, "worker index 2 is not below 2"),
        ({"num_workers": 3, "worker_index": 0}, "cannot share 8 lanes"),
        ({"global_batch_size": 23}, "take 16 or 24"),
        ({"split": "test"}, "there is no split 'test'; the shards have: train"),
        ({"image_dtype": "int8"}, "neither float32 nor uint8"),
        ({"replicas": 5}, "not a multiple of 1 workers × 5 replicas"),
        ({"augment": "spin"}, "augment 'spin' is none of"),
    ],
)
def test_mistakes_are_user_errors(shards: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        public_ids(shards, **options)


def test_autotune_which_can_stall_is_off(shards: Path) -> None:
    config = read_config(shards)
    for dataset in (
        training_batches(config),
        evaluation_batches(config),
        worker_dataset(str(shards), global_batch_size=BATCH),
        worker_dataset(str(shards), global_batch_size=BATCH, training=False),
    ):
        options = dataset.options()
        assert options.autotune.enabled is False
        assert options.threading.private_threadpool_size > 0
