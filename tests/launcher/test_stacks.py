"""Where a real TensorFlow program hangs, from the stacks that it prints when it is aborted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tenfold.launcher.stacks import holds_up_others, whereabouts

PROGRAM = """
import os, sys, threading, time
import numpy as np
import tensorflow as tf

def stuck(number):
    if number >= int(sys.argv[1]):
        print("stuck", flush=True)
        time.sleep(1000)
    return number

dataset = tf.data.Dataset.range(100).map(lambda n: tf.numpy_function(stuck, [n], tf.int64))
iterator = iter(dataset.prefetch(2))

@tf.function
def step(iterator):
    return next(iterator) + 1

if sys.argv[2] == "step":
    while True:
        step(iterator)
for number in range(100):
    print("never" if number else "aside", flush=True)
    threading.Event().wait()
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("3", "step"), "waiting for input: {path}:9 in stuck"),
        (("99", "aside"), "in user code: {path}:24 in <module>"),
    ],
)
def test_input_is_told_from_a_step(tmp_path: Path, arguments: tuple[str, str], place: str) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONFAULTHANDLER": "1", "CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() in ("stuck\n", "aside\n")
    program.send_signal(signal.SIGABRT)
    _, err = program.communicate(timeout=60)
    assert whereabouts(err.splitlines()) == place.format(path=path)
    assert holds_up_others(err.splitlines())
