"""The compiled steps: several training steps per call, or one evaluation batch per call.

`keras.Model.fit` of Keras 3 fails under MultiWorkerMirroredStrategy. These steps use the parts of
a compiled Keras model that work there: `compute_loss`, `compute_metrics` and the optimizer's
`apply`.

AutoGraph is off, as in Keras's own `fit`: it would convert all of Keras, which takes longer than
building the graph.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.reading.feeding.feed import Fed, unpack
from tenfold.data.reading.feeding.nested import map_leaves
from tenfold.data.reading.records.record_reader import EvaluationBatch, TrainingBatch
from tenfold.models.loss_scaling import all_finite, apply_if, finite_on_all
from tenfold.models.training.check_model import check_outputs
from tenfold.models.training.collectives import sum_over_workers
from tenfold.models.training.gradients.accumulation import accumulated_gradients
from tenfold.models.training.gradients.gradient_exchange import GradientExchange
from tenfold.models.training.measuring.metric_totals import MetricTotals

# The largest embedding whose gradient is exchanged as a dense tensor.
_MAX_DENSE_BYTES: Final = 64 * 10**6


class UnevenPartsError(UserError):
    """The model does not allow the parts that this number of workers gets of a batch."""


@dataclass(frozen=True)
class StepsResult:
    """The result of one call of `steps` training steps.

    The first five fields and the last three are the same on every worker, the others are this
    worker's own.

    Attributes:
      losses: float32 [steps], the loss of each global batch.
      skipped: the indexes of steps whose update was left out, because it was not finite.
      learning_rate: the learning rate after the last step.
      gradient_norms: float32 [steps], the norm of the gradient of each global batch; None where
        the optimizer does not tell it.
      metrics: the model's metrics, over the epoch so far and all workers.
      stop: whether any worker requested to stop.
      save: whether any worker requested a checkpoint.
      end: whether any worker requested the end of the run.
      counts: records, leftover records and the sum of the fingerprints of both, modulo 2**64,
        that this worker read of each data set.
      wait_s: seconds that the steps waited for input.
      decode_s: seconds of parsing and decoding the batches, summed over threads.
      exchange_s: seconds from this worker's gradients to the updated weights: waiting for the
        other workers, summing and updating. None with one replica, and for a model with a
        train_step of its own.
    """

    losses: Any
    metrics: dict[str, float]
    stop: bool
    save: bool
    end: bool
    counts: tuple[tuple[int, int, int], ...]
    wait_s: float
    decode_s: float
    exchange_s: float | None = None
    skipped: tuple[int, ...] = ()
    learning_rate: float = 0.0
    gradient_norms: Any = None


def steps_per_call(model: keras.Model, wanted: int, fed_spec: Any, *, equal_parts: bool) -> int:
    """Return the steps of one call into TensorFlow: `wanted`, or 1 to keep gradients sparse.

    Where lists or batches differ in size, an embedding's gradient has another number of slices in
    each step. In a call of several steps it is exchanged as a dense tensor, which large tables
    are spared by calls of one step.

    Args:
      model: the model.
      wanted: --steps_per_execution.
      fed_spec: the spec of what the model is fed.
      equal_parts: whether all replicas get equally many records of every step.
    """
    leaves = tf.nest.flatten(fed_spec)
    varies = not equal_parts or any(isinstance(leaf, tf.RaggedTensorSpec) for leaf in leaves)
    tables = [
        math.prod(layer.embeddings.shape) * 4
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Embedding)
    ]
    return 1 if varies and max(tables, default=0) > _MAX_DENSE_BYTES else wanted


class TrainSteps:
    """Runs training steps of a compiled model under a strategy.

    Args:
      model: a compiled, built model, created in the scope of `strategy`.
      strategy: the strategy whose replicas share each global batch.
      max_steps: the largest number of steps of one call.
      num_data_sets: the data sets that are read.
      class_weights: the weight of each class, or empty for equal weights.
      jit_compile: whether XLA compiles the forward and backward pass.
      equal_parts: whether all replicas get equally many records of every step.
      empty_parts: whether a replica may get no record of a step.
      skip_not_finite: whether all replicas leave out the update of a step whose loss or gradient
        is not finite on any of them. This takes an exchange of one number in each step.
      accumulate: the parts of a replica's batch that are computed one after the other.
      gradient_dtype: the dtype in which gradients are exchanged.

    Raises:
      UnevenPartsError: the model has a step of its own, a loss that is a sum, or a layer that
        normalizes over all replicas, and the parts do not allow it.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        *,
        max_steps: int,
        num_data_sets: int = 1,
        class_weights: Sequence[float] = (),
        jit_compile: bool = False,
        equal_parts: bool = True,
        empty_parts: bool = False,
        skip_not_finite: bool = False,
        accumulate: int = 1,
        gradient_dtype: str = "float32",
    ) -> None:
        self._model = model
        self._empty_parts = empty_parts
        self._skips = skip_not_finite
        self._class_weights = class_weights
        # Only the forward and backward pass of one replica is compiled: XLA has no collectives
        # on CPUs.
        self._gradients = (
            tf.function(self._forward_and_back, jit_compile=True, autograph=False)
            if jit_compile
            else self._forward_and_back
        )
        self._strategy = strategy
        self._max_steps = max_steps
        self._num_data_sets = num_data_sets
        self._metrics = MetricTotals(model)
        self._own_step = type(model).train_step is not keras.Model.train_step
        if self._own_step and skip_not_finite:
            raise UserError(
                f"--on_nan=skip: model '{model.name}' has a train_step of its own, which updates "
                "the weights by itself: use --on_nan=fail or stop"
            )
        if self._own_step and (accumulate > 1 or gradient_dtype != "float32"):
            raise UserError(
                f"model '{model.name}' has a train_step of its own, which exchanges gradients by "
                "itself: leave out --accumulate and --gradient_dtype"
            )
        self._accumulate = accumulate
        self._exchange = GradientExchange(
            None if self._own_step else model.optimizer, gradient_dtype
        )
        self._times_exchange = strategy.num_replicas_in_sync > 1 and not self._own_step
        _check_parts(model, self._own_step, equal_parts=equal_parts, empty_parts=empty_parts)
        self._run = tf.function(self._run_steps, reduce_retracing=True, autograph=False)
        self._run_tail = tf.function(self._tail_step, reduce_retracing=True, autograph=False)

    def __call__(
        self,
        iterator: Any,
        steps: int,
        *,
        stop: bool = False,
        save: bool = False,
        end: bool = False,
    ) -> StepsResult:
        """Run `steps` steps; blocks until all workers do.

        Args:
          iterator: the distributed iterator of training batches.
          steps: the number of steps, from 1 to `max_steps`; the same on all workers.
          stop: whether this worker requests all workers to stop.
          save: whether this worker requests a checkpoint.
          end: whether this worker requests the end of the run.
        """
        assert 1 <= steps <= self._max_steps, steps
        losses, metrics, requests, counts, seconds, more = self._run(
            iterator, tf.constant(steps), tf.constant([float(stop), float(save), float(end)])
        )
        return StepsResult(
            losses=losses.numpy()[:steps],
            metrics={name: float(value) for name, value in metrics.items()},
            stop=bool(requests[0] > 0),
            save=bool(requests[1] > 0),
            end=bool(requests[2] > 0),
            counts=_as_counts(counts),
            wait_s=float(seconds[0]),
            decode_s=float(seconds[1]),
            exchange_s=float(seconds[2]) if self._times_exchange else None,
            skipped=tuple(np.flatnonzero(more["skipped"].numpy()[:steps]).tolist()),
            learning_rate=float(more["learning_rate"]),
            gradient_norms=more["norms"].numpy()[:steps] if self._exchange.knows_norm else None,
        )

    def _run_steps(self, iterator: Any, steps: tf.Tensor, requests: tf.Tensor) -> tuple[Any, ...]:
        """Run the steps as a graph; return the fields of `StepsResult`.

        Losses, metrics and requests of all workers are summed in one all-reduce after the steps.
        """
        begin = (
            tf.constant(0),
            tf.zeros([self._max_steps]),
            tf.zeros([self._num_data_sets, 3], tf.int64),
            tf.zeros([3], tf.float64),
            tf.zeros([self._max_steps], tf.int32),
            tf.zeros([self._max_steps]),
        )

        def body(
            step: Any, losses: Any, total: Any, seconds: Any, skipped: Any, norms: Any
        ) -> Any:
            batch, wait_s = _timed_next(iterator, after=total)
            loss, counts, left_out, exchange_s, norm = self._run_replicas(batch)
            seconds += tf.stack([wait_s, self._sum_replicas(batch.decode_s), exchange_s])
            losses = tf.tensor_scatter_nd_update(losses, [[step]], [loss])
            skipped = tf.tensor_scatter_nd_update(skipped, [[step]], [left_out])
            norms = tf.tensor_scatter_nd_update(norms, [[step]], [norm])
            return step + 1, losses, total + counts, seconds, skipped, norms

        _, losses, counts, seconds, skipped, norms = tf.while_loop(
            lambda step, *_: step < steps, body, begin, parallel_iterations=1
        )
        with tf.control_dependencies([counts]):
            metrics = self._metrics.local_values(self._strategy)
        summed = sum_over_workers(self._strategy, tf.concat([losses, metrics, requests], axis=0))
        losses, metrics, requests = tf.split(summed, [self._max_steps, self._metrics.size, 3])
        rate = tf.cast(tf.convert_to_tensor(self._model.optimizer.learning_rate), tf.float32)
        more = {"skipped": skipped, "learning_rate": rate, "norms": norms}
        return losses, self._metrics.results(metrics), requests, counts, seconds, more

    def read_tail(self, iterator: Any, steps: int) -> tuple[int, int]:
        """Read the batches of leftover records that follow an epoch's training steps.

        Args:
          iterator: the distributed iterator, at the end of the epoch's training steps.
          steps: the number of these batches.

        Returns:
          This worker's (leftover records, sum of their fingerprints modulo 2**64).
        """
        rows = [_as_counts(self._run_tail(iterator))[0] for _ in range(steps)]
        return sum(row[1] for row in rows), sum(row[2] for row in rows) % 2**64

    def _tail_step(self, iterator: Any) -> tf.Tensor:
        return self._sum_replicas(iterator.get_next().counts)

    def _sum_replicas(self, value: Any) -> tf.Tensor:
        """Return the sum of a value over this worker's replicas."""
        return tf.add_n(list(self._strategy.experimental_local_results(value)))

    def _run_replicas(self, batch: Any) -> tuple[tf.Tensor, ...]:
        """Run one step on this worker's replicas.

        Returns:
          The sums of their losses, counts, fingerprints and skipped updates; the means of their
          exchange times and of the norm, which is the same on all.
        """
        outputs = self._strategy.run(self._replica_step, args=(batch,))
        *sums, exchange_s, norm = (self._sum_replicas(value) for value in outputs)
        replicas = len(self._strategy.experimental_local_results(outputs[0]))
        return (*sums, exchange_s / replicas, norm / replicas)

    def _replica_step(self, batch: TrainingBatch) -> tuple[tf.Tensor, ...]:
        """Run one replica's step.

        Returns:
          Its share of the global loss, the counts of its records, 1 if the update was left out,
          else 0, the seconds from its gradients to the updated weights, and the norm of the whole
          gradient.
        """
        x, y, weight = unpack(batch.fed)
        if self._class_weights:
            of_class = tf.gather(tf.constant(self._class_weights), y)
            weight = of_class if weight is None else of_class * weight
        if self._own_step:
            logs = self._model.train_step(tuple(v for v in (x, y, weight) if v is not None))
            loss = logs["loss"] / self._strategy.num_replicas_in_sync
            ready_at, skipped, norm = tf.timestamp(), tf.constant(0), tf.constant(0.0)
        else:
            loss, ready_at, skipped, norm = self._standard_step(x, y, weight, batch.share)
        # The counts depend on the updated variables, so that the clock of the next step, which
        # waits for them, starts when this step is over.
        updated = [tf.convert_to_tensor(v.value) for v in self._model.trainable_variables]
        with tf.control_dependencies(updated):
            counts = tf.identity(batch.counts)
            exchange_s = tf.timestamp() - ready_at
        return tf.cast(loss, tf.float32), counts, skipped, exchange_s, norm

    def _standard_step(self, x: Any, y: Any, weight: Any, share: tf.Tensor) -> tuple[Any, ...]:
        """Return the loss, when this replica's gradients were ready, and what came of them.

        That is 1 if the update was left out, else 0, and the norm of the whole gradient.
        """
        model = self._model
        before = _statistics_of(model) if self._skips else []
        loss, gradients = (
            tf.cond(
                share > 0,
                lambda: _dense(self._batch_gradients(x, y, weight, share)),
                self._no_gradients,
            )
            if self._empty_parts
            else self._batch_gradients(x, y, weight, share)
        )
        # The exchange does not depend on the clock, so it is not delayed.
        with tf.control_dependencies(_tensors(gradients)):
            ready_at = tf.timestamp()
        if _clips(model.optimizer):
            gradients = self._clipped(gradients)
        if self._skips:
            finite = finite_on_all(all_finite([loss, *self._checked(gradients)]))
            norm = apply_if(finite, self._update, gradients, lambda: _restore(model, before))
            return loss, ready_at, tf.cast(tf.logical_not(finite), tf.int32), norm
        return loss, ready_at, tf.constant(0), self._update(gradients)

    def _checked(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return the gradients that must be finite: float16 may overflow, by its own rules."""
        scales = isinstance(self._model.optimizer, keras.optimizers.LossScaleOptimizer)
        return () if scales else gradients

    def _update(self, gradients: Sequence[Any]) -> Any:
        """Update the weights; return the norm of the whole gradient, 0 if it is not known."""
        self._model.optimizer.apply(gradients, self._model.trainable_variables)
        return self._exchange.take_norm()

    def _batch_gradients(self, x: Any, y: Any, weight: Any, share: tf.Tensor) -> Any:
        """Return the loss and the gradients of one replica's batch, computed in parts if asked."""
        if self._accumulate == 1:
            return self._loss_and_gradients(x, y, weight, share)
        variables = self._model.trainable_variables

        def part(*args: Any) -> Any:
            return _dense(self._loss_and_gradients(*args))

        return accumulated_gradients(
            part,
            (x, y, weight),
            share,
            parts=self._accumulate,
            shapes=[variable.shape for variable in variables],
        )

    def _loss_and_gradients(self, x: Any, y: Any, weight: Any, share: tf.Tensor) -> Any:
        """Return the loss and the gradients of one replica's batch; update its metrics."""
        loss, predicted, gradients = self._gradients(x, y, weight, share)
        self._count_metrics(loss, x, y, predicted, weight)
        return loss, [self._exchangeable(gradient) for gradient in gradients]

    def _count_metrics(self, loss: Any, x: Any, y: Any, predicted: Any, weight: Any) -> None:
        """Update the metrics; a part that is not finite is left out where its update is."""

        def count() -> tf.Tensor:
            self._model.compute_metrics(x, y, predicted, sample_weight=weight)
            return tf.constant(0)

        if self._skips:
            tf.cond(all_finite([loss]), count, lambda: tf.constant(0))
        else:
            count()

    def _exchangeable(self, gradient: Any) -> Any:
        """Return a gradient whose shape is the same in all steps of a call.

        TensorFlow keeps the shapes of a collective for the whole call, so an embedding's slices
        of another number in the next step would fail. See `steps_per_call`.
        """
        varies = isinstance(gradient, tf.IndexedSlices) and gradient.indices.shape[0] is None
        return tf.convert_to_tensor(gradient) if varies and self._max_steps > 1 else gradient

    def _no_gradients(self) -> Any:
        """Return what `_loss_and_gradients` does, of a batch without records."""
        return tf.zeros([]), [_zeros_like(v) for v in self._model.trainable_variables]

    def _forward_and_back(self, x: Any, y: Any, weight: Any, share: tf.Tensor) -> tuple[Any, ...]:
        """Return (loss, predictions, gradients) of one replica's batch.

        Keras divides the mean loss of a replica's batch by the number of replicas, which is its
        part of the mean over the global batch where `share` is 1.
        """
        model = self._model
        with tf.GradientTape() as tape:
            predicted = model(x, training=True)
            if model.loss is not None:
                check_outputs(predicted, model.name)
            loss = model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight)
            loss *= tf.cast(share, loss.dtype)
            scaled = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, model.trainable_variables)
        # `tf.cond` and `all_reduce` do not take None for a variable without a gradient, and
        # clipping does not take the sparse gradient of an embedding.
        if self._empty_parts or self._accumulate > 1 or _clips(model.optimizer):
            pairs = zip(gradients, model.trainable_variables, strict=True)
            gradients = [
                _zeros_like(v) if found is None else tf.convert_to_tensor(found)
                for found, v in pairs
            ]
        return loss, predicted, gradients

    def _clipped(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Clip the gradient of the global batch, as one process would.

        Keras clips the gradient of each replica and then sums. Here the gradients are summed,
        then clipped, then divided into equal parts: the parts are small enough to pass Keras's
        clipping unchanged, and sum to the clipped gradient, which is not exchanged again.
        """
        clipped = _clip(self._model.optimizer, self._exchange.sum(gradients))
        self._exchange.use_summed(clipped)
        return [gradient / self._strategy.num_replicas_in_sync for gradient in clipped]


def _as_counts(rows: tf.Tensor) -> tuple[tuple[int, int, int], ...]:
    """Return the counts of each data set, with fingerprints from 0 to 2**64."""
    return tuple((read, left, found % 2**64) for read, left, found in rows.numpy().tolist())


def _timed_next(iterator: Any, *, after: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """Return the next batch and the seconds that it took, counted from when `after` was computed.

    In a graph, only control dependencies order the clock's reads and the iterator.
    """
    with tf.control_dependencies([after]):
        before = tf.timestamp()
    with tf.control_dependencies([before]):
        batch = iterator.get_next()
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        return batch, tf.timestamp() - before


def _check_parts(
    model: keras.Model, own_step: bool, *, equal_parts: bool, empty_parts: bool
) -> None:
    way_out = (
        "take a number of workers that divides the lanes, a --global_batch_size that is a "
        "multiple of the lanes ('tenfold plan' and 'tenfold inspect' print them), and a "
        "--remainder other than pad"
    )
    if own_step and not equal_parts:
        raise UnevenPartsError(
            f"model '{model.name}' has a train_step of its own, which cannot weigh parts of a "
            f"batch that differ in size: {way_out}"
        )
    if not equal_parts and _has_sum_loss(model):
        raise UnevenPartsError(
            f"model '{model.name}' has a loss with reduction='sum', which cannot weigh parts of a "
            "batch that differ in size: compile it with the mean, 'sum_over_batch_size', or "
            f"{way_out}"
        )
    if not empty_parts:
        return
    for layer in model._flatten_layers():
        if getattr(layer, "synchronized", False):
            raise UnevenPartsError(
                f"layer '{layer.name}' normalizes over all replicas, but some get no record of a "
                f"step: {way_out}"
            )


def _has_sum_loss(model: keras.Model) -> bool:
    losses = tf.nest.flatten(model.loss)
    return any(getattr(loss, "reduction", None) == "sum" for loss in losses)


def _statistics_of(model: keras.Model) -> list[tf.Tensor]:
    """Return the values of what a forward pass updates, as moving means, before it does."""
    return [tf.identity(tf.convert_to_tensor(v.value)) for v in _statistics(model)]


def _restore(model: keras.Model, values: Sequence[tf.Tensor]) -> None:
    """Set what `_statistics_of` returned."""
    for variable, value in zip(_statistics(model), values, strict=True):
        variable.assign(value)


def _statistics(model: keras.Model) -> list[keras.Variable]:
    return [v for v in model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]


def _zeros_like(variable: keras.Variable) -> tf.Tensor:
    return tf.zeros(variable.shape, variable.dtype)


def _tensors(gradients: Any) -> list[tf.Tensor]:
    """Return the tensors of gradients, of which some may be sparse or None."""
    parts = tf.nest.flatten(gradients, expand_composites=True)
    return [part for part in parts if part is not None]


def _dense(result: Any) -> Any:
    """Return (loss, gradients) with dense gradients."""
    loss, gradients = result
    return tf.cast(loss, tf.float32), [tf.convert_to_tensor(value) for value in gradients]


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
    """Evaluates a compiled model on batches whose padding has weight 0."""

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy) -> None:
        self._model = model
        self._strategy = strategy
        self._run = tf.function(self._run_batch, reduce_retracing=True, autograph=False)

    def __call__(self, batch: Any) -> tuple[float, int, int]:
        """Return this worker's (sum of losses, records, fingerprint) of one batch."""
        loss, records, fingerprint = self._run(batch)
        return float(loss), int(records), int(fingerprint) % 2**64

    def _run_batch(self, batch: Any) -> tuple[tf.Tensor, ...]:
        outputs = self._strategy.run(self._replica_batch, args=(batch,))
        return tuple(
            tf.add_n(list(self._strategy.experimental_local_results(value))) for value in outputs
        )

    def _replica_batch(self, batch: EvaluationBatch) -> tuple[tf.Tensor, ...]:
        """Evaluate one replica's batch without its padding, so that every metric is exact."""
        count = tf.math.count_nonzero(batch.present, dtype=tf.int32)  # padding comes last
        fed, prints = map_leaves(lambda value: value[:count], (batch.fed, batch.fingerprints))
        total = tf.cond(count > 0, lambda: self._loss_sum(fed, count), lambda: 0.0)
        return total, tf.cast(count, tf.int64), tf.reduce_sum(prints)

    def _loss_sum(self, fed: Fed, count: tf.Tensor) -> tf.Tensor:
        """Return the sum of the losses of `count` records, and update the model's metrics."""
        x, y, weight = unpack(fed)
        predicted = self._model(x, training=False)
        loss = self._model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight)
        self._model.compute_metrics(x, y, predicted, sample_weight=weight)
        count = tf.cast(count, tf.float32)
        replicas = self._strategy.num_replicas_in_sync
        return tf.cast(loss, tf.float32) * replicas * count
