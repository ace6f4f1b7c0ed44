"""Keras callbacks in our training loop.

A callback runs on every worker with the same logs, so that what it decides (a learning rate,
the end of training) it decides alike everywhere. One that writes files should do so on the
chief only: TENFOLD_WORKER_INDEX is 0 there. As with Keras's own `steps_per_execution`, the
batch methods are called once a call of several steps, with the index of its last one.
"""

from collections.abc import Sequence
from typing import Any

import keras

from tenfold.data.errors import UserError
from tenfold.models.model_registry import find_attribute


def load_callbacks(names: Sequence[str], *, working_dir: str) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that `names` name: instances, or classes or functions giving one.

    Raises:
      UserError: a name cannot be found, or gives something else.
    """
    return [_load_callback(name, working_dir) for name in names]


def _load_callback(name: str, working_dir: str) -> keras.callbacks.Callback:
    found = find_attribute(name, working_dir=working_dir, what="callback")
    callback: Any = found if isinstance(found, keras.callbacks.Callback) else found()
    if not isinstance(callback, keras.callbacks.Callback):
        raise UserError(f"callback '{name}' gave {type(callback).__name__}, not a Keras callback")
    return callback


def callback_list(
    model: keras.Model, callbacks: Sequence[keras.callbacks.Callback], *, epochs: int, steps: int
) -> keras.callbacks.CallbackList:
    """Returns Keras's own list of `callbacks`, set up for `epochs` of `steps` steps each."""
    model.stop_training = False
    return keras.callbacks.CallbackList(
        list(callbacks), model=model, add_history=False, add_progbar=False,
        epochs=epochs, steps=steps, verbose=0,
    )  # fmt: skip
