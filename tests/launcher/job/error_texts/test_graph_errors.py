"""The sentence inside TensorFlow's graph errors, in the forms that TensorFlow 2.21 prints."""

import pytest

from tenfold.launcher.job.error_texts.graph_errors import lift_sentence
from tenfold.launcher.job.events import Error, WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord, failure_text

LABELS = "Received a label value of 2 which is outside the valid range of [0, 2)."
ONE = f"""Graph execution error:

Detected at node loss/Softmax defined at (most recent call last):
  File "train.py", line 3, in <module>

  File "/keras/src/losses.py", line 2359, in sparse

{LABELS}
\t [[{{{{node loss/Softmax}}}}]] [Op:__inference_run_steps_1340]
"""
SEVERAL = f"""Graph execution error:

Detected at node 'A' defined at (most recent call last):
Node: 'A'
2 root error(s) found.
  (0) INVALID_ARGUMENT:  {LABELS}
\t [[{{{{node A}}}}]]
\t [[B/_12]]
  (1) INVALID_ARGUMENT:  {LABELS}
0 successful operations.
"""


@pytest.mark.parametrize(
    ("text", "lifted"),
    [
        (f"InvalidArgumentError: {ONE}", f"InvalidArgumentError: {LABELS}"),
        (f"tf.InvalidArgumentError: {SEVERAL}", f"tf.InvalidArgumentError: {LABELS}"),
        (
            "X: Graph execution error:\n\nDetected at node MatMul\nSizes differ [Op:__f_1]",
            "X: Sizes differ",
        ),
        ("X: Graph execution error:\n\n" + "a" * 500, "X: " + "a" * 400 + "…"),
        ("X: Graph execution error:", "X: Graph execution error:"),
        ("ValueError: no\nGraph", "ValueError: no\nGraph"),
    ],
)
def test_sentence_replaces_empty_headline(text: str, lifted: str) -> None:
    assert lift_sentence(text) == lifted


def test_failure_of_a_worker_has_the_sentence() -> None:
    """As an event of the trainer, and as a traceback that a program printed."""
    reported, printed = WorkerRecord(0), WorkerRecord(1)
    reported.take_event(WorkerEvent(0, "", Error("InvalidArgumentError", ONE)), 1.0)
    text = f"Traceback (most recent call last):\n  x\nInvalidArgumentError: {ONE}"
    for line in text.split("\n"):
        printed.take_line(line, 1.0)
    for record in (reported, printed):
        assert failure_text(record)[0] == f"InvalidArgumentError: {LABELS}"
