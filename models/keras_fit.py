"""Repairs Keras 3's `model.fit`, `evaluate` and `predict` under MultiWorkerMirroredStrategy.

    from tenfold.models import keras_fit
    keras_fit.repair()

before the model is made; the program stays as it is otherwise. Keras 3 fails there at two
places (keras-team/keras#20585): it reduces a whole batch over replicas to learn its shapes,
and it reduces scalar losses along an axis that they do not have. In float16 it waits for ever
where gradients overflow on one worker alone (see `overflow`). What is mended is private to Keras,
so the repair is limited to versions that it was tested with. Where the strategy is another one,
or none, everything is as before. tf_keras needs no repair.

The results are those of one process wherever the replicas divide each batch; a last batch that
they do not divide counts its replicas' means alike, as Keras does under every strategy.
`keras.callbacks.ModelCheckpoint` and `BackupAndRestore` write on every worker: give each worker
a path of its own, and take the chief's.
"""

from types import ModuleType
from typing import Any, Final

import keras
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.models.loss_scaling import finite_on_all

# (first, first that is not any more): tested with each minor version in between.
TESTED: Final = ((3, 12), (3, 16))


def repair() -> None:
    """Repairs Keras for this process; calling it again does nothing more.

    Raises:
      UserError: this version of Keras has not been tested with the repair, or Keras does not
        run on TensorFlow.
    """
    version = tuple(int(part) for part in keras.__version__.split(".")[:2])
    if not TESTED[0] <= version < TESTED[1]:
        first, last = (".".join(map(str, bound)) for bound in TESTED)
        raise UserError(
            f"keras_fit knows Keras {first} up to, not including, {last}; this is "
            f"{keras.__version__}: install one of those, or use tf_keras or a custom loop"
        )
    if keras.backend.backend() != "tensorflow":
        raise UserError("keras_fit needs Keras to run on TensorFlow: set KERAS_BACKEND=tensorflow")
    from keras.src.backend.tensorflow import trainer

    if not getattr(trainer, "_tenfold_repaired", False):
        _repair_reduction(trainer)
        _repair_build(trainer.TensorFlowTrainer)
        _repair_overflow(keras.optimizers.LossScaleOptimizer)
        trainer._tenfold_repaired = True


def _repair_reduction(trainer: ModuleType) -> None:
    original = trainer.reduce_per_replica

    def reduce_per_replica(values: Any, strategy: Any, reduction: str) -> Any:
        if reduction in ("auto", "mean", "sum") and _is_multi_worker(strategy):
            how = "SUM" if reduction == "sum" else "MEAN"
            return tf.nest.map_structure(
                lambda value: strategy.reduce(how, value, axis=None), values
            )
        return original(values, strategy, reduction)

    trainer.reduce_per_replica = reduce_per_replica  # type: ignore[attr-defined]


def _repair_build(trainer_class: Any) -> None:
    original = trainer_class._maybe_symbolic_build

    def maybe_symbolic_build(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
        strategy = self._distribute_strategy
        if iterator is None or not _is_multi_worker(strategy):
            original(self, iterator=iterator, data_batch=data_batch)
            return
        for _, _, batches in iterator:
            # The shapes of one replica's part are those that the model will see.
            data_batch = tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], next(batches)
            )
            break
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)

    trainer_class._maybe_symbolic_build = maybe_symbolic_build


def _repair_overflow(optimizer_class: Any) -> None:
    original = optimizer_class.check_finite

    def check_finite(self: Any, grads: Any) -> Any:
        finite = original(self, grads)
        return finite_on_all(finite) if _is_multi_worker(tf.distribute.get_strategy()) else finite

    optimizer_class.check_finite = check_finite


def _is_multi_worker(strategy: Any) -> bool:
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and strategy.extended._in_multi_worker_mode()
    )
