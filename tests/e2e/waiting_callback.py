"""A callback that holds up training after some steps, until the test has done its part."""

import os
import time
from pathlib import Path

import keras


class UntilTold(keras.callbacks.Callback):
    """Waits for the file `told` in the run directory."""

    def on_train_batch_end(self, batch, logs=None):
        told = Path(os.environ["TENFOLD_RUN_DIR"], "told")
        while batch > 4 and not told.exists():
            time.sleep(0.01)
