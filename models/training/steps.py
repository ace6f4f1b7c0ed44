"""The compiled steps: several training steps a call, one evaluation batch a call.

`keras.Model.fit` of Keras 3 fails under MultiWorkerMirroredStrategy; these steps use the
parts of a compiled Keras model that work there: `compute_loss`, `compute_metrics`, the
optimizer's `apply`.

Nothing here is converted by AutoGraph, as nothing is in Keras's own `fit`: the conversion would
go through all of Keras and take longer than building the graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tenfold.data.reading.batches import DECODE_S, FINGERPRINT, split_batch
from tenfold.models.training.collectives import sum_over_workers


@dataclass(frozen=True)
class StepsResult:
    """What one call of several steps gave; the same on every worker but for the last four.

    `losses` [n] are those of the global batches. `stop` and `save` say whether any worker was
    asked to stop, or asked for a checkpoint. `records` and `fingerprint` are of what this
    worker itself read, `wait_s` its seconds of waiting for input, `decode_s` the seconds that
    parsing and decoding these batches took, added up over threads.
    """

    losses: Any
    metrics: dict[str, float]
    stop: bool
    save: bool
    records: int
    fingerprint: int
    wait_s: float
    decode_s: float


class TrainSteps:
    """Runs training steps of a compiled model under a strategy."""

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        *,
        most: int,
        class_weights: Sequence[float] = (),
        jit_compile: bool = False,
    ) -> None:
        self._model = model
        self._class_weights = class_weights
        # Only what runs on one replica is compiled: XLA knows no collectives of the CPU.
        self._gradients = (
            tf.function(self._forward_and_back, jit_compile=True, autograph=False)
            if jit_compile
            else self._forward_and_back
        )
        self._strategy = strategy
        self._most = most
        self._names = sorted(metric_results(model))
        self._own_step = type(model).train_step is not keras.Model.train_step
        self._run = tf.function(self._run_steps, reduce_retracing=True, autograph=False)
        self._run_tail = tf.function(self._tail_step, reduce_retracing=True, autograph=False)

    def __call__(
        self, iterator: Any, steps: int, *, stop: bool = False, save: bool = False
    ) -> StepsResult:
        """Run `steps` steps (at most `most`); `stop` and `save` reach the other workers."""
        assert 1 <= steps <= self._most, steps
        losses, metrics, asked, records, fingerprint, seconds = self._run(
            iterator, tf.constant(steps), tf.constant([float(stop), float(save)])
        )
        return StepsResult(
            losses=losses.numpy()[:steps],
            metrics={name: float(value) for name, value in metrics.items()},
            stop=bool(asked[0] > 0),
            save=bool(asked[1] > 0),
            records=int(records),
            fingerprint=int(fingerprint) % 2**64,
            wait_s=float(seconds[0]),
            decode_s=float(seconds[1]),
        )

    def _run_steps(self, iterator: Any, steps: tf.Tensor, asked: tf.Tensor) -> tuple[Any, ...]:
        """Graph function: see `StepsResult` for what it returns."""
        names = self._names
        begin = (
            tf.constant(0),
            tf.zeros([self._most]),
            tf.zeros([len(names)]),
            tf.constant(0, tf.int64),
            tf.constant(0, tf.int64),
            tf.zeros([2], tf.float64),
        )

        def one(step: Any, losses: Any, _: Any, records: Any, prints: Any, seconds: Any) -> Any:
            batch, waited = _timed_next(iterator, after=records)
            seconds += tf.stack([waited, self._summed(batch[DECODE_S])])
            loss, metrics, count, more = self._everywhere(batch)
            losses = tf.tensor_scatter_nd_update(losses, [[step]], [loss])
            return step + 1, losses, metrics, records + count, prints + more, seconds

        _, losses, metrics, records, fingerprint, seconds = tf.while_loop(
            lambda step, *_: step < steps, one, begin, parallel_iterations=1
        )
        summed = sum_over_workers(self._strategy, tf.concat([losses, metrics, asked], axis=0))
        losses, metrics, asked = tf.split(summed, [self._most, len(names), 2])
        shares = metrics / self._strategy.num_replicas_in_sync
        named = {name: shares[at] for at, name in enumerate(names)}
        return losses, named, asked, records, fingerprint, seconds

    def read_tail(self, iterator: Any, steps: int) -> tuple[int, int]:
        """Read the `steps` steps that follow an epoch and hold what it left out.

        Returns this worker's (records, sum of fingerprints).
        """
        records = fingerprint = 0
        for _ in range(steps):
            count, prints = self._run_tail(iterator)
            records, fingerprint = records + int(count), fingerprint + int(prints)
        return records, fingerprint % 2**64

    def _tail_step(self, iterator: Any) -> tuple[tf.Tensor, tf.Tensor]:
        prints = self._strategy.experimental_local_results(iterator.get_next()[FINGERPRINT])
        every = tf.concat(list(prints), axis=0)
        return tf.math.count_nonzero(every), tf.reduce_sum(every)

    def _summed(self, value: Any) -> tf.Tensor:
        """Return the sum of a value over this worker's replicas."""
        return tf.add_n(list(self._strategy.experimental_local_results(value)))

    def _everywhere(self, batch: Any) -> tuple[tf.Tensor, ...]:
        """Run one step on this worker's replicas and sums what they return."""
        outputs = self._strategy.run(self._one_step, args=(batch,))
        return tuple(self._summed(value) for value in outputs)

    def _one_step(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """One replica's step: its share of the global loss, local metrics, records read."""
        x, y, weight = split_batch(batch)
        if self._class_weights:
            weight = tf.gather(tf.constant(self._class_weights), y)
        if self._own_step:
            logs = self._model.train_step(tuple(v for v in (x, y, weight) if v is not None))
            loss = logs["loss"] / self._strategy.num_replicas_in_sync
        else:
            loss, logs = self._standard_step(x, y, weight)
        metrics = tf.stack([tf.cast(logs[name], tf.float32) for name in self._names])
        prints = batch[FINGERPRINT]
        # The count is there when the step is through: the next step's clock waits for it.
        updated = [tf.convert_to_tensor(v.value) for v in self._model.trainable_variables]
        with tf.control_dependencies(updated):
            count = tf.identity(tf.size(prints, tf.int64))
        return tf.cast(loss, tf.float32), metrics, count, tf.reduce_sum(prints)

    def _standard_step(self, x: Any, y: Any, weight: Any) -> tuple[tf.Tensor, dict[str, Any]]:
        model = self._model
        loss, predicted, gradients = self._gradients(x, y, weight)
        if _clips(model.optimizer):
            gradients = self._clipped(gradients)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss, model.compute_metrics(x, y, predicted, sample_weight=weight)

    def _forward_and_back(self, x: Any, y: Any, weight: Any) -> tuple[Any, ...]:
        """Return (loss, predictions, gradients) of one replica's batch."""
        model = self._model
        with tf.GradientTape() as tape:
            predicted = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight)
            scaled = model.optimizer.scale_loss(loss)
        return loss, predicted, tape.gradient(scaled, model.trainable_variables)

    def _clipped(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Clip the summed gradient, as one process would.

        Keras clips each replica's own before it sums them. Here they are summed first; the
        equal shares that are handed on pass Keras's clipping and sum to the clipped gradient.
        """
        context = tf.distribute.get_replica_context()
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        clipped = _clip(self._model.optimizer, summed)
        return [gradient / self._strategy.num_replicas_in_sync for gradient in clipped]


def _timed_next(iterator: Any, *, after: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """Return the next batch and the seconds that it took, counted from when `after` was there.

    Nothing but the control dependencies orders a clock and an iterator in a graph.
    """
    with tf.control_dependencies([after]):
        before = tf.timestamp()
    with tf.control_dependencies([before]):
        batch = iterator.get_next()
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        return batch, tf.timestamp() - before


def metric_results(model: keras.Model) -> dict[str, Any]:
    """Return the values of the model's compiled metrics by name; each worker must call it."""
    results = model.get_metrics_result()
    return {name: value for name, value in results.items() if name != "loss"}


def _clips(optimizer: keras.Optimizer) -> bool:
    return any((optimizer.clipnorm, optimizer.clipvalue, optimizer.global_clipnorm))


def _clip(optimizer: keras.Optimizer, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    if optimizer.clipnorm:
        return [tf.clip_by_norm(gradient, optimizer.clipnorm) for gradient in gradients]
    if optimizer.global_clipnorm:
        return list(tf.clip_by_global_norm(gradients, optimizer.global_clipnorm)[0])
    limit = optimizer.clipvalue
    return [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients]


class EvaluateSteps:
    """Evaluates a compiled model on batches that may be padded with weight 0."""

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy) -> None:
        self._model = model
        self._strategy = strategy
        self._run = tf.function(self._run_batch, reduce_retracing=True, autograph=False)

    def __call__(self, batch: Any) -> tuple[float, int, int]:
        """Return this worker's (sum of losses, records, fingerprint) of one batch."""
        loss, records, fingerprint = self._run(batch)
        return float(loss), int(records), int(fingerprint) % 2**64

    def _run_batch(self, batch: Any) -> tuple[tf.Tensor, ...]:
        outputs = self._strategy.run(self._one_batch, args=(batch,))
        return tuple(
            tf.add_n(list(self._strategy.experimental_local_results(value))) for value in outputs
        )

    def _one_batch(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """One replica's batch; what is padded is cut off, so that every metric is exact."""
        kept = {
            name: tf.boolean_mask(value, batch["weight"] > 0)
            for name, value in batch.items()
            if name != DECODE_S
        }
        count = tf.size(kept[FINGERPRINT])
        total = tf.cond(count > 0, lambda: self._measured(kept), lambda: 0.0)
        return total, tf.cast(count, tf.int64), tf.reduce_sum(kept[FINGERPRINT])

    def _measured(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        x, y, _ = split_batch(batch)
        predicted = self._model(x, training=False)
        loss = self._model.compute_loss(x=x, y=y, y_pred=predicted)
        self._model.compute_metrics(x, y, predicted)
        count = tf.cast(tf.size(batch[FINGERPRINT]), tf.float32)
        replicas = self._strategy.num_replicas_in_sync
        return tf.cast(loss, tf.float32) * replicas * count
