"""The plain lines and the rows of the live table while a job runs."""

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from tenfold.launcher.display.live_table import make_row
from tenfold.launcher.display.plain import PLAIN_INTERVAL_S, PlainView, epoch_lines
from tenfold.launcher.job.events import MARK, Epoch, WorkerEvent, decode_event
from tenfold.launcher.job.worker_record import WorkerRecord

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
    "sentences": ["50 of 50 records, each read once", "compute-bound: fine"],
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
def test_epoch_lines(data: dict[str, Any], lines: list[str]) -> None:
    epoch = event("epoch", 0, data).message
    assert isinstance(epoch, Epoch)
    assert epoch_lines(epoch) == lines


def event(kind: str, index: int, data: dict[str, Any]) -> WorkerEvent:
    phase = data.get("phase", "")
    document = {"kind": kind, "worker": index, "phase": phase, "time": 1.0, "data": data}
    return decode_event(MARK + json.dumps(document))


def worker(index: int = 1, **events: dict[str, Any]) -> WorkerRecord:
    """A worker that has reported events of these kinds, in this order."""
    record = WorkerRecord(index)
    for kind, data in events.items():
        record.take_event(event(kind, index, data), now=100.0)
    return record


STARTED: dict[str, Any] = {"pid": 7}
STEP = {"step": 50, "total_steps": 2000, "loss": 0.123456, "records_per_s": 1234.5}
STAT = {"state": "S", "rss_bytes": 612_000_000}


@pytest.mark.parametrize(
    ("record", "row"),
    [
        (worker(), ("1", "starting", "", "", "", "", "")),
        (worker(started=STARTED), ("1", "running", "", "", "", "", "")),
        (
            worker(started=STARTED, phase={"phase": "first_step"}, stat=STAT),
            ("1", "first step", "", "", "", "", "612 MB"),
        ),
        (
            worker(started=STARTED, step={**STEP, "wait_share": 0.256}, stat=STAT),
            ("1", "training", "50/2000", "0.1235", "1,234", "26%", "612 MB"),
        ),
        # A program may report its step alone; a figure that is no number is left out.
        (
            worker(step={"step": 0, "loss": "none yet", "records_per_s": None}),
            ("1", "training", "0", "", "", "", ""),
        ),
        (worker(started=STARTED, stat={"state": "T"}), ("1", "stopped", "", "", "", "", "")),
        # An ended worker keeps the figures of its last step, but has no memory.
        (
            worker(step=STEP, stat=STAT, exit={"code": 0}),
            ("1", "done", "50/2000", "0.1235", "1,234", "", ""),
        ),
        (worker(stat=STAT, exit={"code": -9}), ("1", "ended (-9)", "", "", "", "", "")),
    ],
)
def test_table_row(record: WorkerRecord, row: tuple[str, ...]) -> None:
    assert make_row(record) == row


def test_table_row_of_a_lost_worker() -> None:
    record = worker(3, step=STEP, stat=STAT)
    record.mark_lost(now=101.0)
    assert make_row(record) == ("3", "lost", "50/2000", "0.1235", "1,234", "", "")


def test_plain_progress_is_one_line_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("tenfold.launcher.display.plain.time", clock)
    stream = io.StringIO()
    view = PlainView(stream)
    lines = []
    for tick in range(100):  # a tenth of an interval each
        clock.now = 1000.0 + tick * PLAIN_INTERVAL_S / 10
        records = [worker(index, step={**STEP, "step": tick}) for index in range(2)]
        view.tick(records)
        lines.append(stream.getvalue().count("\n"))
    assert lines == [tick // 10 for tick in range(100)]
    assert stream.getvalue().startswith(
        "[tenfold] all 2 workers: training, step 10/2000, loss 0.1235\n"
        "[tenfold] all 2 workers: training, step 20/2000, loss 0.1235\n"
    )


def test_plain_progress_names_workers_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenfold.launcher.display.plain.PLAIN_INTERVAL_S", 0.0)
    stream = io.StringIO()
    lost = worker(2)
    lost.mark_lost(now=101.0)
    records = [worker(0, started=STARTED), worker(1, step=STEP, exit={"code": 1}), lost]
    PlainView(stream).tick([*records, worker(3, step={"step": 4})])
    assert stream.getvalue() == (
        "[tenfold] worker 0: running; worker 1: ended (1); worker 2: ended (lost); "
        "worker 3: training, step 4\n"
    )
