"""One worker's part of a run: its model, its steps, its state, and how they are saved."""

import time
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Manifest, Split
from tenfold.data.integrity.salvage import check_sizes, load_salvage
from tenfold.data.planning.lanes import WorkerShards
from tenfold.data.reading.batches import evaluation_batches, training_batches
from tenfold.data.reading.decoding.augment_options import parse_augment
from tenfold.data.reading.decoding.decoders import resolve_decoder
from tenfold.data.reading.graph_records import input_spec
from tenfold.data.reading.order import Position
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_errors import READ_ERRORS, explain_read_error
from tenfold.data.reading.receipts import Receipt, make_receipt
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.models.model_spec import ModelSpec
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.bottleneck import Bottleneck, find_bottleneck, shares_of
from tenfold.models.training.build import build_metrics, build_model
from tenfold.models.training.checkpoint import (
    FOLDER,
    Checkpoint,
    RunState,
    check_fits,
    check_same_run,
    newest_checkpoint,
    save_checkpoint,
)
from tenfold.models.training.optimizer import balanced_weights
from tenfold.models.training.steps import (
    EvaluateSteps,
    StepsResult,
    TrainSteps,
    metric_results,
    sum_over_workers,
)
from tenfold.models.training.timing import Stopwatch, gather_over_workers, time_all_reduce


@dataclass(frozen=True)
class Place:
    """Which of the workers this process is."""

    worker: int = 0
    num_workers: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes what all share."""
        return self.worker == 0


class Session:
    """A worker's model under a strategy, with everything that a checkpoint holds.

    Every method is called on all workers at the same steps: most of them communicate.
    """

    def __init__(
        self, config: TrainConfig, *, strategy: tf.distribute.Strategy, place: Place
    ) -> None:
        self.config = config
        self.strategy = strategy
        self.place = place
        self.salvage = load_salvage(config.salvage) if config.salvage else None
        self.manifest: Manifest = (
            self.salvage.manifest if self.salvage else read_manifest(config.shards)
        )
        self._reading = self._read_config(config.train_split)
        self.shards: WorkerShards = self._reading.shards(drop_remainder=True)
        with strategy.scope():
            self.model = build_model(config, self._model_spec())
            build_metrics(self.model, training_batches(self._reading).element_spec)
        balanced = config.class_weights == "balanced"
        self._train = TrainSteps(
            self.model,
            strategy,
            most=config.steps_per_execution,
            class_weights=balanced_weights(self.split) if balanced else (),
            jit_compile=config.jit_compile,
        )
        self._evaluate = EvaluateSteps(self.model, strategy)
        self.state = RunState(Position(), config.seed, config.global_batch_size)
        self._iterator: Any = None
        self._watch = Stopwatch()
        self._all_reduce_s = 0.0
        self.last_save = time.monotonic()

    @property
    def split(self) -> Split:
        """The split that is trained on."""
        return self.manifest.split(self.config.train_split)

    @property
    def steps_done(self) -> int:
        """Steps since the run began."""
        position = self.state.position
        return position.epoch * self.shards.steps_per_epoch + position.step

    def _read_config(self, split: str) -> ReadConfig:
        return ReadConfig(
            folder=open_folder(self.config.shards).path,
            manifest=self.manifest,
            split=split,
            global_batch_size=self.config.global_batch_size,
            num_workers=self.place.num_workers,
            worker=self.place.worker,
            spec=input_spec(self.manifest, self.config.image_size),
            seed=self.config.seed,
            replicas=self.strategy.num_replicas_in_sync // self.place.num_workers,
            shuffle_buffer_bytes=self.config.shuffle_buffer_bytes,
            decoder=self.config.decoder,
            augment=parse_augment(self.config.augment),
            moved=self.salvage.moved if self.salvage else {},
            cache=self.config.cache_options(),
        )

    def _model_spec(self) -> ModelSpec:
        spec = self._reading.spec
        return ModelSpec(
            inputs=spec.inputs,
            image_shape=spec.image_shape,
            num_classes=spec.num_classes,
            global_batch_size=self.config.global_batch_size,
            steps_per_epoch=self.shards.steps_per_epoch,
            epochs=self.config.epochs,
            seed=self.config.seed,
            learning_rate=self.config.learning_rate,
        )

    # --- training ---

    def start_reading(self) -> None:
        """Opens the input pipeline at the run's position.

        Raises:
          JobError: a shard is missing, or its size is not the manifest's.
        """
        check_sizes(
            self._reading.folder,
            [s for s in self.shards.shards if s.name not in self._reading.moved],
        )
        if self.place.num_workers > 1:
            self._all_reduce_s = time_all_reduce(self.strategy, self.model.trainable_variables)
        self._iterator = iter(
            self.strategy.distribute_datasets_from_function(
                lambda _: training_batches(self._reading, start=self.state.position, tail=True)
            )
        )

    def run_steps(self, steps: int, *, stop: bool, save: bool) -> StepsResult:
        """Trains `steps` steps and moves the state on.

        Raises:
          JobError: a record cannot be read or decoded; the message names it.
        """
        position = self.state.position
        begun = time.monotonic()
        try:
            result = self._train(self._iterator, steps, stop=stop, save=save)
        except READ_ERRORS as error:
            explained = explain_read_error(self._reading, start=position, steps=steps)
            if explained is None:
                raise
            raise explained from error
        self._watch.add(
            steps, time.monotonic() - begun, wait_s=result.wait_s, decode_s=result.decode_s
        )
        self.state = replace(
            self.state,
            position=Position(position.epoch, position.step + steps),
            loss_sum=self.state.loss_sum + float(result.losses.sum(dtype="float64")),
            records=self.state.records + result.records,
            fingerprint=(self.state.fingerprint + result.fingerprint) % 2**64,
        )
        return result

    def finish_epoch(self) -> tuple[float, dict[str, float], Receipt]:
        """Returns the epoch's (mean loss, metrics, receipt) and moves to the next epoch."""
        steps = self.shards.steps_per_epoch
        tail = self._train.read_tail(self._iterator, self.shards.tail_steps)
        records, fingerprint, left_out = self._total(
            self.state.records, self.state.fingerprint + tail[1], tail[0]
        )
        receipt = make_receipt(
            self.split,
            records=records,
            fingerprint=fingerprint,
            left_out=left_out,
            broken=self._broken(self.split),
        )
        loss, metrics = self.state.loss_sum / steps, self._take_metrics()
        self.state = replace(
            self.state,
            position=Position(self.state.position.epoch + 1, 0),
            loss_sum=0.0,
            records=0,
            fingerprint=0,
        )
        return loss, metrics, receipt

    def _broken(self, split: Split) -> tuple[str, ...]:
        """Returns the records of `split` that were lost before the run began."""
        names = {shard.name for shard in split.shards}
        bad = self.salvage.bad_records if self.salvage else ()
        return tuple(str(record) for record in bad if record.shard in names)

    def bottleneck(self) -> Bottleneck:
        """Returns what the steps since the last call waited for, over all workers."""
        own = self._watch.read(parallel_batches=self._reading.parallel_batches)
        rows = gather_over_workers(
            self.strategy, own, worker=self.place.worker, num_workers=self.place.num_workers
        )
        shares = shares_of(rows, communication_s=self._all_reduce_s)
        images = self._reading.spec.image_shape is not None
        decoder = resolve_decoder(self.config.decoder) if images else None
        return find_bottleneck(shares, decoder=decoder)

    def _total(self, *values: int) -> tuple[int, ...]:
        """Sums 64-bit numbers over the workers, modulo 2**64."""
        wrapped = [value % 2**64 for value in values]
        signed = [value - 2**64 if value >= 2**63 else value for value in wrapped]
        summed = self._sum(tf.constant(signed, tf.int64))
        return tuple(int(value) % 2**64 for value in summed.numpy())

    @tf.function(autograph=False)
    def _sum(self, value: tf.Tensor) -> tf.Tensor:
        return sum_over_workers(self.strategy, value)

    def any_worker(self, mine: bool) -> bool:
        """Returns whether any worker says yes."""
        return self._total(int(mine), 0)[0] > 0

    def barrier(self) -> None:
        """Waits for all workers."""
        self._total(0, 0)

    def _take_metrics(self) -> dict[str, float]:
        """Returns the metrics over all workers and resets them."""
        values = {name: float(value) for name, value in metric_results(self.model).items()}
        self.model.reset_metrics()
        return values

    # --- evaluation ---

    def evaluate(self) -> tuple[float, dict[str, float], Receipt] | None:
        """Returns (mean loss, metrics, receipt) over the whole validation split.

        None where the shards have no such split.
        """
        name = self.config.validation_split
        if not self.manifest.has_split(name):
            return None
        loss, records, fingerprint = 0.0, 0, 0
        reading = self._read_config(name)
        for batch in self.strategy.distribute_datasets_from_function(
            lambda _: evaluation_batches(reading)
        ):
            batch_loss, count, prints = self._evaluate(batch)
            loss, records, fingerprint = loss + batch_loss, records + count, fingerprint + prints
        records, fingerprint = self._total(records, fingerprint % 2**64)
        total = float(self._sum(tf.constant([loss], tf.float64)).numpy()[0])
        split = self.manifest.split(name)
        receipt = make_receipt(
            split, records=records, fingerprint=fingerprint, broken=self._broken(split)
        )
        return total / max(1, records), self._take_metrics(), receipt

    # --- checkpoints ---

    def save(self) -> str | None:
        """Saves a checkpoint; returns its path on the chief, None on the others."""
        records, fingerprint = self._total(self.state.records, self.state.fingerprint)
        values = tuple(keras.ops.convert_to_numpy(v) for v in self._variables())
        self.last_save = time.monotonic()
        if not self.place.is_chief:
            return None
        state = replace(self.state, records=records, fingerprint=fingerprint)
        paths = tuple(variable.path for variable in self._variables())
        folder = self._checkpoint_folder()
        keep = self.config.keep_checkpoints
        return save_checkpoint(folder, Checkpoint(state, values, paths), keep=keep)

    def restore(self) -> bool:
        """Goes on from the run directory's newest whole checkpoint; says if there was one."""
        checkpoint = newest_checkpoint(self._checkpoint_folder())
        self._check_agreement(checkpoint)
        if checkpoint is None:
            return False
        check_same_run(checkpoint.state, self.config)
        variables = self._variables()
        check_fits(checkpoint, [v.path for v in variables], [v.shape for v in variables])
        for variable, value in zip(variables, checkpoint.values, strict=True):
            variable.assign(value)
        state = checkpoint.state
        if not self.place.is_chief:  # the sums over all workers go on at the chief
            state = replace(state, records=0, fingerprint=0)
        self.state = state
        return True

    def _checkpoint_folder(self) -> Folder:
        return open_folder(f"{self.config.run_dir}/{FOLDER}")

    def _check_agreement(self, found: Checkpoint | None) -> None:
        """Checks that all workers have found the same checkpoint, before any of them uses it.

        Raises:
          UserError: they have not.
        """
        at = found.state.position if found else Position()
        steps = at.epoch * self.shards.steps_per_epoch + at.step
        if self._total(steps, 0)[0] != steps * self.place.num_workers:
            raise UserError(
                f"worker {self.place.worker} would go on at step {steps}, others elsewhere: is "
                f"the run directory {self.config.run_dir} the same on all hosts?"
            )

    def _variables(self) -> list[keras.Variable]:
        """The model's (random seeds included), the optimizer's, the metrics'."""
        model = self.model
        return [*model.variables, *model.optimizer.variables, *model.metrics_variables]
