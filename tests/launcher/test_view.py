"""The lines that a person reads while a job runs."""

from typing import Any

import pytest

from tenfold.launcher.events import WorkerEvent
from tenfold.launcher.view import epoch_lines

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
    "said": ["50 of 50 records, each read once", "compute-bound: fine"],
}


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (
            TRAINER,
            [
                "epoch 2/4: loss 0.9773, accuracy 0.7225, val_loss 0.3; 1,234 records/s",
                "  50 of 50 records, each read once",
                "  compute-bound: fine",
            ],
        ),
        ({"epoch": 0, "loss": 2.0, "mae": 0.5, "fine": True}, ["epoch 1: loss 2, mae 0.5"]),
        ({"note": "nothing to show"}, ["epoch: "]),
    ],
)
def test_an_epoch_as_it_is_read(data: dict[str, Any], lines: list[str]) -> None:
    assert epoch_lines(WorkerEvent("epoch", 0, "training", data=data)) == lines
