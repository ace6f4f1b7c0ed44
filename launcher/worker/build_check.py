"""The check of a training before its workers start: one process builds the model, then ends.

It reports errors as the trainer does (see `launcher.job.events`), so a mistake in the model, its
shapes or a callback is reported once, and before anything waits for anything. The configuration
comes in an environment variable, because job.json still describes the launch before this one.
"""

import json
import os
import sys
from typing import Final, NoReturn

from tenfold.data.runtime.deferred_keras import defer_unused_keras_modules
from tenfold.data.runtime.tensorflow_version import require_tensorflow
from tenfold.launcher.job.events import EventWriter
from tenfold.launcher.worker.trainer import report_error
from tenfold.models.train_config import config_from_json

CONFIG_VARIABLE: Final = "TENFOLD_CHECK"


def main() -> NoReturn:
    """Run the check and end the process: 0 if the training can start, 1 after an error."""
    defer_unused_keras_modules()
    events = EventWriter(os.fdopen(os.dup(1), "w", encoding="utf-8"), 0)
    events.enter("build")
    try:
        _check()
        events.enter("done")
        status = 0
    except Exception as error:  # noqa: BLE001  a model function may raise anything
        report_error(events, error)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _check() -> None:
    require_tensorflow()
    import tensorflow as tf

    from tenfold.data.reading.read_options import WorkerPlace
    from tenfold.models.model_registry import find_attribute
    from tenfold.models.training.session import Session

    config = config_from_json(json.loads(os.environ[CONFIG_VARIABLE]))
    place = WorkerPlace(0, int(os.environ["TENFOLD_NUM_WORKERS"]))
    for name in config.callbacks:  # imported, not made: a callback may begin a run elsewhere
        find_attribute(name, working_dir=config.working_dir, what="callback")
    Session(config, strategy=tf.distribute.get_strategy(), place=place)


if __name__ == "__main__":
    main()
