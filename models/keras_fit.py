"""Repair of Keras 3's `model.fit`, `evaluate` and `predict` under MultiWorkerMirroredStrategy.

Call it before the model is made; the rest of the program stays as it is:

    from tenfold.models import keras_fit
    keras_fit.repair()

Keras 3 fails under this strategy at two places (keras-team/keras#20585): it reduces a whole
batch over the replicas to learn its shapes, and it reduces scalar losses along an axis that they
do not have. In float16 it hangs when gradients overflow on one worker alone (see
`loss_scaling`). The repair replaces private functions of Keras, so it is limited to the versions
that it was tested with. Under any other strategy, or none, Keras behaves as before. tf_keras
needs no repair.

The results equal those of one process if the replicas divide each batch. In a last batch that
they do not divide, the mean of each replica has the same weight, as in Keras under every
strategy.

Keras's callbacks that write files (ModelCheckpoint, CSVLogger, TensorBoard, BackupAndRestore)
write on the chief only; BackupAndRestore restores on every worker, from a folder that all share. A
loss that is not finite is left to `keras.callbacks.TerminateOnNaN`.
"""

from types import ModuleType
from typing import Any, Final

import keras
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.models.file_callbacks import callbacks_of_worker
from tenfold.models.loss_scaling import finite_on_all

# Keras versions (major, minor): the first supported, and the first not supported. The repair
# was tested with each minor version between them.
TESTED: Final = ((3, 12), (3, 16))


def repair() -> None:
    """Repair Keras in this process. Further calls have no effect.

    Raises:
      UserError: the repair has not been tested with this version of Keras, or Keras does not
        run on TensorFlow.
    """
    version = tuple(int(part) for part in keras.__version__.split(".")[:2])
    if not TESTED[0] <= version < TESTED[1]:
        first, last = (".".join(map(str, bound)) for bound in TESTED)
        raise UserError(
            f"keras_fit supports Keras {first} or newer, but older than {last}; this is "
            f"{keras.__version__}: install a supported version, or use tf_keras or a custom loop"
        )
    if keras.backend.backend() != "tensorflow":
        raise UserError("keras_fit needs Keras to run on TensorFlow: set KERAS_BACKEND=tensorflow")
    from keras.src.backend.tensorflow import trainer

    if not getattr(trainer, "_tenfold_repaired", False):
        _repair_reduction(trainer)
        _repair_build(trainer.TensorFlowTrainer)
        _repair_overflow(keras.optimizers.LossScaleOptimizer)
        _repair_callbacks(keras.callbacks.CallbackList)
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
            # The model sees one replica's part of a batch, so the shapes come from that part.
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


def _repair_callbacks(list_class: Any) -> None:
    original = list_class.__init__

    def init(self: Any, callbacks: Any = None, *args: Any, **kwargs: Any) -> None:
        strategy: Any = getattr(kwargs.get("model"), "_distribute_strategy", None)
        if callbacks and _is_multi_worker(strategy):
            is_chief = bool(strategy.extended.should_checkpoint)
            callbacks = callbacks_of_worker(tf.nest.flatten(callbacks), is_chief=is_chief)
        original(self, callbacks, *args, **kwargs)

    list_class.__init__ = init


def _is_multi_worker(strategy: Any) -> bool:
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and strategy.extended._in_multi_worker_mode()
    )
