"""Trains in one process with the options of a TrainConfig.

python tuned_program.py SHARDS RUN_DIR OPTIONS  ->  the result as JSON, OPTIONS being JSON too
"""

import json
import sys
from dataclasses import asdict

import keras
import tensorflow as tf

from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.train_config import config_from_json
from tenfold.models.training.loop import train
from tenfold.models.training.reporting.reporter import NullReporter

options = {
    "shards": sys.argv[1],
    "run_dir": sys.argv[2],
    "model": "mlp",
    "steps_per_execution": 10,
    "working_dir": sys.path[0],
    **json.loads(sys.argv[3]),
}
config = config_from_json(options)
result = train(
    config, strategy=tf.distribute.get_strategy(), place=WorkerPlace(), reporter=NullReporter()
)
model = keras.models.load_model(result.model_path)
rate = model.optimizer.learning_rate
print(
    json.dumps({**asdict(result), "policy": model.layers[-2].compute_dtype, "rate": float(rate)})
)
