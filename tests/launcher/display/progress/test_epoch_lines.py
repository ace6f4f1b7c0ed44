"""The lines of a finished epoch."""

import json
from typing import Any

import pytest

from tenfold.launcher.display.progress.epoch_lines import MEMORY_EPOCHS, EpochLines
from tenfold.launcher.job.events import MARK, Epoch, WorkerEvent, decode_event, encode_event

RECEIPT = "50 of 50 records, each read once"


def parsed(data: dict[str, Any]) -> Epoch:
    """The message of a worker that sent `data`."""
    document = {"kind": "epoch", "worker": 0, "phase": "", "time": 1.0, "data": data}
    message = decode_event(MARK + json.dumps(document)).message
    assert isinstance(message, Epoch)
    return message


TRAINER = {
    "epoch": 1,
    "epochs": 4,
    "step": 50,
    "loss": 0.97731,
    "seconds": 3.8,
    "records_per_s": 1234.5,
    "wait_share": 0.1,
    "metrics": {"accuracy": 0.72251, "val_loss": 0.3},
    "receipt": {"records": 50},
    "sentences": [RECEIPT, "compute-bound: fine"],
}


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (
            TRAINER,
            [
                "epoch 2/4: loss 0.9773, accuracy 0.7225, val_loss 0.3; 1,234 records/s",
                f"  {RECEIPT}",
                "  compute-bound: fine",
            ],
        ),
        ({"epoch": 0, "loss": 2.0, "mae": 0.5, "fine": True}, ["epoch 1: loss 2, mae 0.5"]),
        ({"note": "nothing to show"}, ["epoch: "]),
    ],
)
def test_epoch_lines(data: dict[str, Any], lines: list[str]) -> None:
    assert EpochLines().lines(parsed(data)) == lines


def shown(*epochs: tuple[str, ...]) -> list[list[str]]:
    """The sentences shown of epochs with these sentences."""
    lines = EpochLines()
    return [[line.strip() for line in lines.lines(Epoch(0, 9, sentences=s))[1:]] for s in epochs]


def test_sentences_are_shown_when_they_change() -> None:
    fast, slow = "steps wait 3% of the time: fine", "steps wait 12.5 % of the time: fine"
    other = "49 of 50 records: some were not read"
    assert shown((RECEIPT, fast), (RECEIPT, slow), (other, fast), (RECEIPT, "reading")) == [
        [RECEIPT, fast],
        [],  # a share alone is no change
        [other],
        ["reading"],
    ]


def test_sentences_that_alternate_are_shown_once() -> None:
    assert shown(*[("a",), ("b",)] * 10) == [["a"], ["b"], *[[]] * 18]


def test_sentence_that_returns_after_many_epochs_is_shown() -> None:
    pause = [("b",)] * MEMORY_EPOCHS
    assert shown(("a",), *pause, ("a",))[-1] == ["a"]
    assert shown(("a",), *pause[1:], ("a",))[-1] == []


def test_sentences_survive_the_event_stream() -> None:
    sent = Epoch(1, 4, 0.5, {"accuracy": 0.5}, 10.0, (RECEIPT,))
    assert decode_event(encode_event(WorkerEvent(0, "training", sent))).message == sent
