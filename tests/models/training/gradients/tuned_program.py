"""Trains in one process, once for each of several options of a TrainConfig.

python tuned_program.py SHARDS RUN_DIR:OPTIONS …  ->  for each what the training printed, then
RESULT and the result as a line of JSON, on both outputs. OPTIONS are JSON too.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import keras
import tensorflow as tf

from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.train_config import config_from_json
from tenfold.models.training.loop import train
from tenfold.models.training.reporting.reporter import NullReporter

SHARDS, *RUNS = sys.argv[1:]

for run in RUNS:
    run_dir, _, options = run.partition(":")
    defaults = {
        "shards": SHARDS,
        "run_dir": run_dir,
        "model": "mlp",
        "steps_per_execution": 10,
        "working_dir": str(Path(__file__).parents[1]),
    }
    config = config_from_json({**defaults, **json.loads(options)})
    result = train(
        config, strategy=tf.distribute.get_strategy(), place=WorkerPlace(), reporter=NullReporter()
    )
    model = keras.models.load_model(result.model_path)
    found = {
        **asdict(result),
        "policy": model.layers[-2].compute_dtype,
        "rate": float(model.optimizer.learning_rate),
    }
    for output in (sys.stdout, sys.stderr):
        print("RESULT" + json.dumps(found), file=output, flush=True)
