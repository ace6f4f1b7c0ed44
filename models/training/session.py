"""One worker's part of a run: its model, its steps, its state and its checkpoints."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Manifest, Split
from tenfold.data.integrity.salvage import check_sizes, load_salvage
from tenfold.data.planning.splits.validation_split import validation_split
from tenfold.data.reading.batches import evaluation_batches, feed_of
from tenfold.data.reading.decoding.decoders import load_decoder, resolve_decoder
from tenfold.data.reading.feeding.feed import load_map
from tenfold.data.reading.locating.read_errors import READ_ERRORS, explain_mixed_error
from tenfold.data.reading.mixing.mixed_batches import mixed_batches
from tenfold.data.reading.mixing.mixture import Mixture, open_mixture
from tenfold.data.reading.mixing.pass_counts import PassCounts
from tenfold.data.reading.mixing.pass_receipt import pass_receipt
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_options import Position, ReadOptions, WorkerPlace
from tenfold.data.reading.receipts import Receipt, make_receipt
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.models.model_spec import ModelSpec
from tenfold.models.output_files import CHECKPOINTS_FOLDER
from tenfold.models.run_rules.figures import VALIDATION_PREFIX, BestFigure, observe
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.build import build_metrics, build_model, make_model_spec
from tenfold.models.training.check_model import check_model, naming_misfit
from tenfold.models.training.checkpoints.checkpoint import (
    Checkpoint,
    RunState,
    check_fits,
    check_same_run,
    is_learning_rate,
    newest_checkpoint,
    tuning_changes,
    without_learning_rate,
)
from tenfold.models.training.checkpoints.checkpoint_writer import (
    CheckpointWriter,
    SavedCheckpoint,
)
from tenfold.models.training.checkpoints.memory_copy import memory_copy
from tenfold.models.training.collectives import WorkerCollectives
from tenfold.models.training.gradients.optimizer import balanced_weights, check_class_weights
from tenfold.models.training.measuring.bottleneck import Bottleneck, find_bottleneck, shares_of
from tenfold.models.training.measuring.metric_totals import metric_results
from tenfold.models.training.measuring.timing import Stopwatch, time_all_reduce
from tenfold.models.training.steps import EvaluateSteps, StepsResult, TrainSteps, steps_per_call


class Session:
    """A worker's model under a strategy, and the state that a checkpoint holds.

    All workers must call the same methods at the same steps, because most methods communicate.

    Args:
      config: the configuration of the run, the same on every worker.
      strategy: the strategy that joins the workers.
      place: the place of this worker.

    Attributes:
      data: the data sets that this worker reads for training.
      max_steps: the most steps of `run_steps`.
      changes: what a resumed run changes, as `tuning_changes` tells it.

    Raises:
      UserError: the shards, the model and the configuration contradict each other.
    """

    def __init__(
        self, config: TrainConfig, *, strategy: tf.distribute.Strategy, place: WorkerPlace
    ) -> None:
        self.config = config
        self.strategy = strategy
        replicas = max(1, strategy.num_replicas_in_sync // place.num_workers)
        self.place = replace(place, replicas=replicas)
        self.salvage = load_salvage(config.salvage) if config.salvage else None
        self.manifest: Manifest = (
            self.salvage.manifest if self.salvage else read_manifest(config.shards)
        )
        self.data = self._open_data()
        self._reading = self.data.first
        self._validation = self._validation_config()
        # Before the scope: variables of the user's function are not the model's.
        feed = feed_of(self._reading)
        self._fed_spec = feed.element_spec
        self._spec = make_model_spec(
            config,
            feed,
            steps_per_epoch=self.data.steps_per_epoch,
            statistics=self.data.statistics,
        )
        with strategy.scope():
            self.model = build_model(config, self._spec)
            check_model(self.model, self._spec, name=config.model)
            with naming_misfit(config.model):
                build_metrics(self.model, self._fed_spec)
        balanced = config.class_weights == "balanced"
        if balanced:
            check_class_weights(self._spec)
        equal_parts = self.data.is_even(replicas)
        self.max_steps = steps_per_call(
            self.model,
            config.steps_per_execution,
            self._fed_spec,
            equal_parts=equal_parts,
        )
        self._train = TrainSteps(
            self.model,
            strategy,
            max_steps=self.max_steps,
            num_data_sets=len(self.data.members),
            class_weights=(
                balanced_weights(self.data.label_counts, split=config.train_split)
                if balanced
                else ()
            ),
            jit_compile=config.jit_compile,
            equal_parts=equal_parts,
            empty_parts=self.data.may_be_empty(replicas),
            accumulate=config.accumulate,
            gradient_dtype=config.gradient_dtype,
            skip_not_finite=config.on_nan == "skip",
        )
        self._evaluate = EvaluateSteps(self.model, strategy)
        self._collectives = WorkerCollectives(
            strategy, worker=place.index, num_workers=place.num_workers
        )
        self.state = self._initial_state()
        self.changes: list[str] = []
        self._began = time.monotonic()
        self._check_watched()
        self._iterator: Any = None
        self._left_out = 0
        self._watch = Stopwatch()
        self._all_reduce_s: float | None = None
        self.last_save = time.monotonic()
        self._copy = memory_copy(config.run_dir)
        self._copies: tuple[Any, ...] = ()
        self._writer = CheckpointWriter(
            self._checkpoint_folder() if place.is_chief else None,
            keep=config.keep_checkpoints,
            copy=self._copy,
        )

    @property
    def split(self) -> Split:
        """The split to train on."""
        return self.manifest.split(self.config.train_split)

    @property
    def steps_done(self) -> int:
        """Steps done since the run began, over all launches into its run directory."""
        position = self.state.position
        return position.epoch * self.data.steps_per_epoch + position.step

    @property
    def seconds(self) -> float:
        """How long the run has lasted under --max_time, without what restarts have lost.

        0 without --max_time: checkpoints of equal runs are then equal.
        """
        if not self.config.stop.max_time_s:
            return 0.0
        return self.state.seconds + time.monotonic() - self._began

    def _check_watched(self) -> None:
        """Check that the figures that decide something exist.

        Raises:
          UserError: there is no such figure.
        """
        if not self.config.watched():
            return
        names = ["loss", *metric_results(self.model)]
        if self._validation is not None:
            names += [f"{VALIDATION_PREFIX}{name}" for name in names]
        for figure in self.config.watched():
            if figure.name not in names:
                missing = figure.is_validation and self._validation is None
                way_out = (
                    "these shards have no validation split: give --validation_shards, or write "
                    "them with --split=train:0.9,validation:0.1"
                    if missing
                    else f"there are {', '.join(names)}"
                )
                raise UserError(f"no figure '{figure.name}' (--monitor, --keep_best): {way_out}")

    def _initial_state(self) -> RunState:
        config = self.config
        return RunState(
            Position(),
            config.seed,
            config.global_batch_size,
            remainder=config.remainder,
            bucket=config.bucket,
            balance=config.balance,
            shares=config.shares,
            others=(PassCounts(),) * len(config.others),
            tuning=config.tuning(),
        )

    def _open_data(self) -> Mixture:
        data = open_mixture(
            self.config.data_sets,
            split=self.config.train_split,
            global_batch_size=self.config.global_batch_size,
            place=self.place,
            options=self._read_options(),
        )
        if self.salvage is None:
            return data
        # `launch` refuses it with a mixture.
        return Mixture(
            (replace(data.first, manifest=self.salvage.manifest, moved=self.salvage.moved),)
        )

    def _validation_config(self) -> ReadConfig | None:
        """Return what this worker reads for evaluation; None without a validation split."""
        config, where = self.config, self.config.validation_shards
        other = read_manifest(where) if where else None
        split = validation_split(self.manifest, config.validation_split, other=other, where=where)
        if split is None:
            return None
        # Not more records at once than in a part of a step, and in a mixture as many.
        batch = max(1, config.global_batch_size // config.accumulate)
        reading = replace(self._reading, split=split.name, global_batch_size=batch)
        if other is None:
            return reading
        options, image_shape = self._reading.options, self._reading.spec.image_shape
        if image_shape is not None:  # the model's input, whatever the size of these images
            options = replace(options, image_size=image_shape[:2])
        return replace(
            reading, folder=open_folder(where).path, manifest=other, options=options, moved={}
        )

    def _read_options(self) -> ReadOptions:
        return ReadOptions(
            image_size=self.config.image_size,
            augment=self.config.augment,
            decoder=load_decoder(self.config.decoder, working_dir=self.config.working_dir),
            seed=self.config.seed,
            shuffle_buffer_bytes=self.config.shuffle_buffer_bytes,
            remainder=self.config.remainder,
            bucket=self.config.bucket,
            balance=self.config.balance,
            feed=self.config.feed,
            map=load_map(self.config.map, working_dir=self.config.working_dir) or "",
            cache=self.config.cache_options(),
        )

    @property
    def spec(self) -> ModelSpec:
        """What the model function is told."""
        return self._spec

    # --- training ---

    def start_reading(self) -> None:
        """Open the input pipeline at the run's position.

        Raises:
          JobError: a shard is missing, or its size differs from the manifest.
        """
        for member in self.data.members:
            own = [shard for shard in member.shards.shards if shard.name not in member.moved]
            check_sizes(member.folder, own)
        self._iterator = iter(
            self.strategy.distribute_datasets_from_function(
                lambda _: mixed_batches(self.data, start=self.state.position, tail=True)
            )
        )

    def run_steps(
        self, steps: int, *, stop: bool = False, save: bool = False, end: bool = False
    ) -> StepsResult:
        """Train `steps` steps and advance the state.

        Args:
          steps: the number of steps, the same on all workers.
          stop: whether this worker requests all workers to stop.
          save: whether this worker requests a checkpoint.
          end: whether this worker requests the end of the run.

        Raises:
          JobError: a record cannot be read or decoded; the message names the record.
        """
        position = self.state.position
        began = time.monotonic()
        try:
            result = self._train(self._iterator, steps, stop=stop, save=save, end=end)
        except READ_ERRORS as error:
            explained = explain_mixed_error(self.data, start=position, steps=steps, error=error)
            if explained is None:
                raise
            raise explained from error
        self._watch.add(
            steps, time.monotonic() - began, wait_s=result.wait_s, decode_s=result.decode_s
        )
        (records, left_out, fingerprint), *others = result.counts
        self.state = replace(
            self.state,
            position=Position(position.epoch, position.step + steps),
            loss_sum=self.state.loss_sum + self._loss_sum(position.step, result),
            skipped=self.state.skipped + self._full_batches(position.step, result.skipped),
            records=self.state.records + records,
            fingerprint=(self.state.fingerprint + fingerprint) % 2**64,
            others=self._passes_after(steps, others),
        )
        self._left_out = left_out
        return result

    def _passes_after(
        self, steps: int, counts: Sequence[tuple[int, int, int]]
    ) -> tuple[PassCounts, ...]:
        """Return the counts of the further data sets after steps that end no pass but the last."""
        before = self.data.positions(self.state.position)[1:]
        members = zip(self.data.members[1:], before, self.state.others, counts, strict=True)
        return tuple(
            known.plus(found, ends_pass=position.step + steps == member.shards.steps_per_epoch)
            for member, position, known, found in members
        )

    def _loss_sum(self, first: int, result: StepsResult) -> float:
        """Return the sum of the losses of steps, each weighed by its records per full batch."""
        return sum(
            float(loss) * self._full_batches(first, (index,))
            for index, loss in enumerate(result.losses)
            if index not in result.skipped
        )

    def _full_batches(self, first: int, steps: Sequence[int]) -> float:
        """Return the records of `steps`, counted from step `first` of the epoch, in batches."""
        records = sum(self.data.global_records(first + index) for index in steps)
        return records / self.config.global_batch_size

    def finish_epoch(self) -> tuple[float, dict[str, float], tuple[Receipt, ...]]:
        """Return the epoch's (mean loss, metrics, receipts) and move on to the next epoch.

        There is a receipt for each data set.
        """
        leftover, leftover_fingerprint = self._train.read_tail(
            self._iterator, self.data.tail_steps
        )
        receipts = self._receipts(leftover + self._left_out, leftover_fingerprint)
        full_batches = self.data.epoch_records / self.config.global_batch_size
        kept = full_batches - self.state.skipped
        loss = self.state.loss_sum / kept if kept > 0 else math.nan
        metrics = self._take_metrics()
        self.state = replace(
            self.state,
            position=Position(self.state.position.epoch + 1, 0),
            loss_sum=0.0,
            skipped=0.0,
            records=0,
            fingerprint=0,
            others=tuple(passes.next_epoch() for passes in self.state.others),
        )
        return loss, metrics, receipts

    def _receipts(self, left_out: int, fingerprint: int) -> tuple[Receipt, ...]:
        """Return the receipts of the epoch over all workers.

        Args:
          left_out: this worker's leftover records of the first data set.
          fingerprint: the sum of the fingerprints that `state` lacks.
        """
        state, data = self.state, self.data
        first = (state.records, left_out, state.fingerprint + fingerprint)
        sums = self._collectives.sum_ints(*first, *(s for each in state.others for s in each.sums))
        receipt = make_receipt(
            self.split,
            records=sums[0],
            left_out=sums[1],
            fingerprint=sums[2],
            broken=self._broken(self.split),
            repeated=data.first.shards.repeated_records,
            **self._balanced(),
        )
        if not data.is_mixed:
            return (receipt,)
        found = [replace(receipt, data=data.names[0])]
        for index, passes in enumerate(state.others, start=1):
            own = sums[6 * index - 3 : 6 * index + 3]
            found.append(pass_receipt(data, index, passes.with_sums(own)))
        return tuple(found)

    def finish_within_epoch(self) -> tuple[float, dict[str, float], tuple[Receipt, ...]]:
        """Return (mean loss, metrics, receipts) of the epoch so far; the run ends here."""
        data, step = self.data, self.state.position.step
        first, *others = self._receipts(0, 0)
        so_far = data.first.shards.records_between(0, step)
        receipts = (
            replace(first, expected=so_far, of_epoch=first.expected, repeated=0, balanced=()),
            *(
                replace(receipt, passes=step / member.shards.steps_per_epoch)
                for receipt, member in zip(others, data.members[1:], strict=True)
            ),
        )
        full_batches = data.records_between(0, step) / self.config.global_batch_size
        return self.state.loss_sum / full_batches, self._take_metrics(), receipts

    def _balanced(self) -> dict[str, Any]:
        """Return what `make_receipt` is told where records of rare classes are repeated."""
        balance = self._reading.balance
        if balance is None:
            return {}
        numbers = (str(index) for index in range(len(balance.copies)))
        names = self.manifest.label_names or numbers
        return {
            "expected": self.data.epoch_records,
            "balanced": tuple(zip(names, balance.copies, strict=True)),
        }

    def _broken(self, split: Split) -> tuple[str, ...]:
        """Return the names of the damaged records of `split` that salvage left out."""
        names = {shard.name for shard in split.shards}
        bad = self.salvage.bad_records if self.salvage else ()
        return tuple(str(record) for record in bad if record.shard in names)

    def bottleneck(self) -> Bottleneck:
        """Return the bottleneck of the steps since the last call, over all workers."""
        own = self._watch.read(parallel_batches=self._reading.parallel_batches)
        if self._all_reduce_s is None:  # not before the first step, which somebody waits for
            alone = self.place.num_workers == 1
            variables = self.model.trainable_variables
            self._all_reduce_s = 0.0 if alone else time_all_reduce(self.strategy, variables)
        shares = shares_of(self._collectives.gather(own), communication_s=self._all_reduce_s)
        images = self._reading.spec.image_shape is not None
        decoder = resolve_decoder(self.config.decoder) if images else None
        return find_bottleneck(shares, decoder=decoder)

    def any_worker(self, flag: bool) -> bool:
        """Return True if `flag` is true on any worker; blocks until all workers call it."""
        return self._collectives.any_worker(flag)

    def gather(self, row: Sequence[float]) -> list[tuple[float, ...]]:
        """Return the `row` of every worker, by worker index; rows have the same length."""
        return self._collectives.gather(row)

    def barrier(self) -> None:
        """Wait until all workers have called this method."""
        self._collectives.barrier()

    def _take_metrics(self) -> dict[str, float]:
        """Return the metrics over all workers, then reset them."""
        values = {name: float(value) for name, value in metric_results(self.model).items()}
        self.model.reset_metrics()
        return values

    # --- evaluation ---

    def evaluate(self) -> tuple[float, dict[str, float], Receipt] | None:
        """Return (mean loss, metrics, receipt) over the whole validation split.

        Returns None if the shards have no validation split.
        """
        reading = self._validation
        if reading is None:
            return None
        loss, records, fingerprint = 0.0, 0, 0
        for batch in self.strategy.distribute_datasets_from_function(
            lambda _: evaluation_batches(reading)
        ):
            batch_loss, count, batch_fingerprint = self._evaluate(batch)
            loss, records = loss + batch_loss, records + count
            fingerprint += batch_fingerprint
        records, fingerprint = self._collectives.sum_ints(records, fingerprint % 2**64)
        total = self._collectives.sum_float(loss)
        split = reading.manifest.split(reading.split)
        # Salvage leaves out records of the training's shards only.
        broken = () if self.config.validation_shards else self._broken(split)
        receipt = make_receipt(split, records=records, fingerprint=fingerprint, broken=broken)
        return total / max(1, records), self._take_metrics(), receipt

    def evaluate_within_epoch(self) -> tuple[float, dict[str, float], Receipt] | None:
        """Return what `evaluate` does; the metrics of the epoch's training go on afterwards."""
        variables = self.model.metrics_variables
        kept = [[part.numpy() for part in self._parts(variable)] for variable in variables]
        self.model.reset_metrics()
        result = self.evaluate()
        for variable, values in zip(variables, kept, strict=True):
            for part, value in zip(self._parts(variable), values, strict=True):
                part.assign(value)
        return result

    def _parts(self, variable: keras.Variable) -> tuple[Any, ...]:
        """Return the parts of a variable that this worker's replicas have."""
        parts: tuple[Any, ...] = self.strategy.experimental_local_results(variable.value)
        return parts

    def observe(self, figures: Mapping[str, float]) -> list[str]:
        """Take figures that were measured now; return the names of those that are the best yet.

        Only the figures that decide something are looked at.
        """
        best, improved = dict(self.state.best), []
        for figure in self.config.watched():
            if figure.name in figures:
                before = best.get(figure.name, BestFigure())
                now = observe(figure, before, figures[figure.name], step=self.steps_done)
                best[figure.name] = now
                improved += [figure.name] if now.since == 0 else []
        self.state = replace(self.state, best=best)
        return improved

    # --- checkpoints ---

    def save(self) -> None:
        """Copy the state, and let the chief save it while training goes on.

        Waits for the checkpoint before it.

        Raises:
          OSError, JobError: the checkpoint before it could not be saved.
        """
        state = self.state
        others = [number for each in state.others for number in each.sums]
        records, fingerprint, *sums = self._collectives.sum_ints(
            state.records, state.fingerprint, *others
        )
        # Reading a metric's variable sums it over the workers.
        values = [tf.convert_to_tensor(v.value) for v in self._variables()]
        self.last_save = time.monotonic()
        if self._writer.is_idle:
            return
        state = replace(
            state,
            records=records,
            fingerprint=fingerprint,
            others=tuple(
                passes.with_sums(sums[6 * index : 6 * index + 6])
                for index, passes in enumerate(state.others)
            ),
            seconds=self.seconds,
        )
        paths = tuple(variable.path for variable in self._variables())
        self._writer.start(Checkpoint(state, self._copied(values), paths))

    def _copied(self, values: Sequence[tf.Tensor]) -> tuple[Any, ...]:
        """Return copies of tensors, whose memory may be that of variables.

        The memory of the last checkpoint's copies is taken again: new memory costs more than the
        copying.
        """
        self._writer.wait()
        if self._copies:
            for copy, value in zip(self._copies, values, strict=True):
                np.copyto(copy, _as_array(value))
        else:
            self._copies = tuple(np.array(_as_array(value)) for value in values)
        return self._copies

    def saved_checkpoints(self, *, wait: bool) -> list[SavedCheckpoint]:
        """Return the checkpoints that have become whole since the last call, on the chief.

        Args:
          wait: whether to wait for the one that is being saved.

        Raises:
          OSError, JobError: one could not be saved.
        """
        if wait:
            self._writer.wait()
        return self._writer.take_saved()

    def finish_saving(self) -> None:
        """Give the checkpoint that is being saved a few seconds, when the run has failed."""
        self._writer.wait_shortly()

    def restore(self) -> bool:
        """Restore the newest intact checkpoint of the run directory; return True if there is one.

        Raises:
          UserError: the checkpoint is of another run or model, or the workers found different
            ones.
        """
        folder = self._checkpoint_folder()
        checkpoint = newest_checkpoint(folder, copy=lambda name: self._read_copy(folder, name))
        self._check_agreement(checkpoint)
        if checkpoint is None:
            return False
        check_same_run(checkpoint.state, self.config)
        before, now = checkpoint.state.tuning, self.config.tuning()
        variables = self._variables()
        if any(before.get(name) != now[name] for name in ("learning_rate", "schedule")) and before:
            checkpoint = without_learning_rate(checkpoint)
            variables = [v for v in variables if not is_learning_rate(v.path)]
        check_fits(checkpoint, [v.path for v in variables], [v.shape for v in variables])
        for variable, value in zip(variables, checkpoint.values, strict=True):
            variable.assign(value)
        state = checkpoint.state
        # A checkpoint holds the sums over all workers: only the chief continues them, the others
        # restart at 0, so that the next sum over the workers counts nothing twice.
        if not self.place.is_chief:
            others = tuple(passes.with_sums((0,) * 6) for passes in state.others)
            state = replace(state, records=0, fingerprint=0, others=others)
        self.state = replace(state, tuning=now)
        self.changes = tuning_changes(before, now)
        self._began = time.monotonic()
        return True

    def _read_copy(self, folder: Folder, name: str) -> bytes | None:
        data = self._copy.read(folder, name) if self._copy else None
        if data is not None:
            print(f"restoring {name} from this host's memory, not from {folder.path}", flush=True)
        return data

    def remove_copy(self) -> None:
        """Remove this host's copy of the newest checkpoint, when the run has ended."""
        if self._copy is not None:
            self._copy.remove()

    def rewind(self) -> bool:
        """Restore the newest checkpoint, or else the initial state; return as `restore`."""
        self._writer.wait()
        self.barrier()  # the chief may have had to wait
        restored = self.restore()
        if not restored:
            initial = build_model(self.config, self._spec)
            build_metrics(initial, self._fed_spec)
            values = [keras.ops.convert_to_numpy(v) for v in _variables_of(initial)]
            for variable, value in zip(self._variables(), values, strict=True):
                variable.assign(value)
            self.state = self._initial_state()
        return restored

    def not_finite_weight(self) -> str:
        """Return the path of a variable of the model that is not finite, empty if all are.

        The same on every worker. A variable that is not trained may be infinite, as the constant
        of a mask.
        """
        bad = ""
        for variable in self.model.variables:
            value = tf.convert_to_tensor(variable.value)
            if not value.dtype.is_floating:
                continue
            finite = tf.math.is_finite(value)
            allowed = finite if variable.trainable else finite | tf.math.is_inf(value)
            if not tf.reduce_all(allowed):
                bad = bad or variable.path
        return bad

    def weights(self) -> list[Any]:
        """Return the values of the model's variables, in their order."""
        return [keras.ops.convert_to_numpy(variable) for variable in self.model.variables]

    def copy_of_model(self, weights: Sequence[Any]) -> keras.Model:
        """Return a copy of the model with other `weights`, outside of the strategy."""
        model = build_model(self.config, self._spec)
        for variable, value in zip(model.variables, weights, strict=True):
            variable.assign(value)
        return model

    def _checkpoint_folder(self) -> Folder:
        return open_folder(f"{self.config.run_dir}/{CHECKPOINTS_FOLDER}")

    def _check_agreement(self, found: Checkpoint | None) -> None:
        """Check that all workers have found the same checkpoint, before any worker uses it.

        Raises:
          UserError: the workers have found checkpoints of different steps.
        """
        position = found.state.position if found else Position()
        steps = position.epoch * self.data.steps_per_epoch + position.step
        if self._collectives.sum_ints(steps, 0)[0] != steps * self.place.num_workers:
            raise UserError(
                f"worker {self.place.index} would resume at step {steps}, other workers at "
                f"another step: --run_dir={self.config.run_dir} must be the same folder on all "
                "hosts"
            )

    def _variables(self) -> list[keras.Variable]:
        """Return the variables of the model (random seeds included), optimizer and metrics."""
        return _variables_of(self.model)


def _as_array(tensor: tf.Tensor) -> Any:
    """Return a tensor as an array, without copying where numpy knows its type."""
    try:
        return np.asarray(memoryview(tensor))
    except (BufferError, TypeError, ValueError):
        return tensor.numpy()


def _variables_of(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]
