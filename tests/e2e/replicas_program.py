"""The training loop on two devices of each worker: python replicas_program.py SHARDS RUN_DIR."""

import json
import os
import sys

import tensorflow as tf
from two_devices import use_two_devices

from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.loop import train
from tenfold.models.training.reporting.reporter import NullReporter

use_two_devices()
strategy = tf.distribute.MultiWorkerMirroredStrategy()
place = WorkerPlace(
    int(os.environ["TENFOLD_WORKER_INDEX"]), int(os.environ["TENFOLD_NUM_WORKERS"])
)
config = TrainConfig(sys.argv[1], sys.argv[2], model="cnn", epochs=2, seed=7)
result = train(config, strategy=strategy, place=place, reporter=NullReporter())
print("RESULT" + json.dumps({"replicas": strategy.num_replicas_in_sync}), flush=True)
os._exit(0)
