"""Where a program hangs, from the stacks that it prints when it is aborted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tenfold.launcher.supervisor.stack_dumps import (
    describe_location,
    holds_up_others,
    thread_stacks,
)

DUMP = """Fatal Python error: Aborted

Thread 0x00007f1 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 320 in wait

Current thread 0x00007f2 (most recent call first):
  File "/usr/lib/python3.11/queue.py", line 171 in get
  File "{file}", line 12 in fetch
  File "/home/me/train.py", line 30 in <module>

Extension modules: numpy.core._multiarray_umath (total: 1)""".splitlines()


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("/home/me/data.py", "in user code: /home/me/data.py:12 in fetch"),
        ("/x/site-packages/tensorflow/python/data/ops/iterator_ops.py", "waiting for input"),
        ("/x/site-packages/tensorflow/python/eager/execute.py", "in a TensorFlow call"),
        ("/x/site-packages/keras/src/saving/saving_lib.py", "writing or reading a checkpoint"),
    ],
)
def test_location_of_a_stack(file, place):
    lines = [line.replace("{file}", file) for line in DUMP]
    assert describe_location(lines).startswith(place)
    assert [len(stack) for stack in thread_stacks(lines)] == [1, 3]
    assert describe_location([]) == ""


PROGRAM = """
import os, sys, threading, time
import numpy as np
import tensorflow as tf

def stuck(number):
    if number >= int(sys.argv[1]):
        time.sleep(1000)
    return number

dataset = tf.data.Dataset.range(100).map(lambda n: tf.numpy_function(stuck, [n], tf.int64))
iterator = iter(dataset.prefetch(2))

@tf.function
def step(iterator):
    return next(iterator) + 1

def train():
    global steps
    while True:
        step(iterator)
        steps += 1

def wait():
    threading.Event().wait()

def everyone_waits(main):
    frames = sys._current_frames()
    stuck_calls = [f for f in frames.values() if f.f_code is stuck.__code__ and f.f_lineno == 8]
    innermost = frame = frames[main]
    while frame and frame.f_code.co_filename != __file__:
        frame = frame.f_back
    if frame is innermost or frame.f_code.co_name != sys.argv[2]:
        return False
    return sys.argv[2] == "wait" or (steps == int(sys.argv[1]) and stuck_calls)

def report(main):
    while not everyone_waits(main):
        time.sleep(0.01)
    print("all wait", flush=True)

steps = 0
threading.Thread(target=report, args=(threading.get_ident(),), daemon=True).start()
globals()[sys.argv[2]]()
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("3", "train"), "waiting for input: {path}:8 in stuck"),
        (("99", "wait"), "in user code: {path}:25 in wait"),
    ],
)
def test_stack_tells_waiting_for_input_from_a_step(
    tmp_path: Path, arguments: tuple[str, str], place: str
) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONFAULTHANDLER": "1", "CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "all wait\n"
    program.send_signal(signal.SIGABRT)
    _, err = program.communicate(timeout=60)
    assert describe_location(err.splitlines()) == place.format(path=path)
    assert holds_up_others(err.splitlines())
