"""Keras callbacks in the training loop.

A callback runs on every worker with the same logs, so that its decisions (a learning rate, the
end of training) are the same on all workers. Keras's own callbacks that write files run on the
chief only; a user's own should write only where TENFOLD_WORKER_INDEX is 0. As with Keras's own
`steps_per_execution`, the batch methods run once per call of several steps, with the index of its
last step.
"""

from collections.abc import Sequence
from typing import Any

import keras

from tenfold.data.errors import UserError
from tenfold.models.file_callbacks import callbacks_of_worker, check_tensorboard
from tenfold.models.model_registry import find_attribute


def load_callbacks(
    names: Sequence[str], *, working_dir: str, is_chief: bool
) -> list[keras.callbacks.Callback]:
    """Return the callbacks of `names` that this worker runs.

    Args:
      names: ``module:name`` or ``file.py:name`` of callback instances, or of classes or
        functions that return one when called without arguments.
      working_dir: the folder that modules and relative files are looked up in.
      is_chief: whether this worker is the chief, which alone writes files.

    Raises:
      UserError: a name cannot be found, does not give a Keras callback, or gives one that
        cannot work here.
    """
    callbacks = [_load_callback(name, working_dir) for name in names]
    return callbacks_of_worker(callbacks, is_chief=is_chief)


def _load_callback(name: str, working_dir: str) -> keras.callbacks.Callback:
    found = find_attribute(name, working_dir=working_dir, what="callback")
    callback: Any = found if isinstance(found, keras.callbacks.Callback) else found()
    if not isinstance(callback, keras.callbacks.Callback):
        raise UserError(f"callback '{name}' gave {type(callback).__name__}, not a Keras callback")
    check_tensorboard(callback, f"callback '{name}'")
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        raise UserError(
            f"callback '{name}' is a BackupAndRestore: leave it out, the trainer saves and "
            "restores checkpoints itself (--checkpoint_every)"
        )
    return callback


def callback_list(
    model: keras.Model, callbacks: Sequence[keras.callbacks.Callback], *, epochs: int, steps: int
) -> keras.callbacks.CallbackList:
    """Return Keras's CallbackList of `callbacks`, set up for `epochs` of `steps` steps each."""
    model.stop_training = False
    return keras.callbacks.CallbackList(
        list(callbacks), model=model, add_history=False, add_progbar=False,
        epochs=epochs, steps=steps, verbose=0,
    )  # fmt: skip
