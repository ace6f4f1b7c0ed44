"""Loading TensorFlow without the messages that it writes past Python's own streams."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_start() -> Iterator[None]:
    """Sends what native code writes to standard error nowhere; exceptions pass as ever.

    TensorFlow's start-up messages cannot be turned off otherwise: they are written before its
    own settings are read.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
