"""A worker of the check of a cluster: all-reduces between all workers for a few seconds.

It goes through TensorFlow's own servers, as a training does, over the same addresses and ports.
"""

import os
import sys
import time
from typing import Any, Final, NoReturn

from tenfold.data.planning.cluster_task import find_task
from tenfold.data.runtime.deferred_keras import defer_unused_keras_modules
from tenfold.launcher.job.error_texts.peer_errors import is_peer_error
from tenfold.launcher.job.events import EXIT_PEER_FAILED, EventWriter, Result
from tenfold.launcher.worker.trainer import report_error

EXCHANGE_S: Final = 2.0
NUM_FLOATS: Final = 1_000_000  # 4 MB, the gradient of a small model


def main() -> NoReturn:
    """Exchange, report the figures, and end the process: 0, or as the trainer after an error."""
    task = find_task(os.environ)
    assert task is not None, "the check sets the variables"
    events = EventWriter(os.fdopen(os.dup(1), "w", encoding="utf-8"), task.index)
    events.enter("import")
    defer_unused_keras_modules()
    status = 0
    try:
        events.send(Result(_exchange(events)))
        events.enter("done")
    except Exception as error:  # noqa: BLE001  TensorFlow raises many types
        report_error(events, error)
        status = EXIT_PEER_FAILED if is_peer_error(error) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _exchange(events: EventWriter) -> dict[str, Any]:
    """Return the number of all-reduces, their seconds and their bytes."""
    import tensorflow as tf

    from tenfold.models.training.collectives import sum_over_workers

    events.enter("rendezvous")
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    summed = tf.function(lambda value: sum_over_workers(strategy, value), autograph=False)
    # The first value is the number of workers whose time is over: all then stop at the same round.
    summed(tf.zeros([NUM_FLOATS]))
    events.enter("training")
    rounds, began, is_over = 0, time.monotonic(), False
    while not is_over:
        own = time.monotonic() - began >= EXCHANGE_S
        is_over = float(summed(tf.fill([NUM_FLOATS], float(own)))[0]) > 0
        rounds += 1
    return {"rounds": rounds, "seconds": time.monotonic() - began, "bytes": 4 * NUM_FLOATS}


if __name__ == "__main__":
    main()
