"""Keras callbacks that write files: only the chief may write them.

All workers of a job run the same callbacks. Keras's own know nothing of a chief: every worker
would write the same files, at the same time.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any, Final

import keras

from tenfold.data.errors import UserError

_WRITERS: Final = (
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.CSVLogger,
    keras.callbacks.TensorBoard,
    keras.callbacks.RemoteMonitor,
)
# The methods by which BackupAndRestore writes and removes its backup; it reads it in another.
_BACKUP_METHODS: Final = ("on_epoch_end", "on_train_batch_end", "on_train_end")


def callbacks_of_worker(callbacks: Sequence[Any], *, is_chief: bool) -> list[Any]:
    """Return the callbacks that a worker runs: on all but the chief none that write files.

    BackupAndRestore stays on every worker, because every worker must restore the same weights,
    but writes on the chief only.

    Args:
      callbacks: Keras callbacks.
      is_chief: whether the worker is the chief.
    """
    if is_chief:
        return list(callbacks)
    kept = [callback for callback in callbacks if not isinstance(callback, _WRITERS)]
    for callback in kept:
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            for name in _BACKUP_METHODS:
                setattr(callback, name, _do_nothing)
    return kept


def check_tensorboard(callback: Any, subject: str) -> None:
    """Check that a TensorBoard callback finds the package that it writes with.

    Raises:
      UserError: the package is not installed; `subject` begins the message.
    """
    needs = isinstance(callback, keras.callbacks.TensorBoard)
    if needs and importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            f"{subject} needs the package 'tensorboard': run 'python -m pip install tensorboard' "
            "where the workers run, or leave it out: tensorboard/ in the run directory holds the "
            "same figures"
        )


def _do_nothing(*_: Any, **__: Any) -> None:
    pass
