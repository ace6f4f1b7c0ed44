"""The lines and the rows of the live view."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tenfold.launcher.display.live_layout import job_view, make_row, waiting_view
from tenfold.launcher.display.progress.best_value import BestValue
from tenfold.launcher.display.progress.job_progress import Activity, JobProgress
from tenfold.launcher.job.worker_record import WorkerRecord

Worker = Callable[..., WorkerRecord]
STARTED: dict[str, Any] = {"pid": 7}
STEP = {"step": 50, "total_steps": 2000, "loss": 0.123456, "records_per_s": 1234.5}
STAT = {"state": "S", "rss_bytes": 612_000_000}


@pytest.mark.parametrize(
    ("events", "row"),
    [
        ({}, ("1", "starting", "", "", "", "")),
        ({"started": STARTED}, ("1", "running 5.0 s", "", "", "", "")),
        (
            {"started": STARTED, "phase": {"phase": "first_step"}, "stat": STAT},
            ("1", "compiling the first step 5.0 s", "", "", "", "612 MB"),
        ),
        (
            {"started": STARTED, "step": {**STEP, "wait_share": 0.256}, "stat": STAT},
            ("1", "training", "50/2,000", "1,234", "26%", "612 MB"),
        ),
        # A program may report its step alone; a figure that is no number is left out.
        (
            {"step": {"step": 0, "loss": "none yet", "records_per_s": None}},
            ("1", "training", "0", "", "", ""),
        ),
        ({"started": STARTED, "stat": {"state": "T"}}, ("1", "stopped 5.0 s", "", "", "", "")),
        # An ended worker keeps the figures of its last step, but has no memory.
        (
            {"step": STEP, "stat": STAT, "exit": {"code": 0}},
            ("1", "done", "50/2,000", "1,234", "", ""),
        ),
        ({"stat": STAT, "exit": {"code": -9}}, ("1", "ended (-9)", "", "", "", "")),
    ],
)
def test_table_row(worker: Worker, events: dict[str, Any], row: tuple[str, ...]) -> None:
    assert tuple(make_row(worker(**events), now=105.0).values()) == row


def test_table_row_of_a_lost_worker(worker: Worker) -> None:
    record = worker(3, step=STEP, stat=STAT)
    record.mark_lost(now=101.0)
    row = tuple(make_row(record, now=105.0).values())
    assert row == ("3", "lost", "50/2,000", "1,234", "", "")


PROGRESS = JobProgress(
    activities=(Activity("training", 9.0, (0, 1, 2)),),
    epoch=3, epochs=10, step=700, total_steps=2000, loss=0.12345, records_per_s=24691.0,
    remaining_s=195.0, best=BestValue("val_accuracy", 0.88, 2),
)  # fmt: skip


def lines_of(view: Any, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert all(cell_len(line) <= width for line in lines)
    return [line.rstrip() for line in lines]


def drawn(
    records: list[WorkerRecord],
    *,
    size: tuple[int, int],
    progress: JobProgress = PROGRESS,
    name: str = "first",
    own_rates: bool = True,
) -> list[str]:
    view = job_view(
        progress, records, name=name, seconds=45.0, now=105.0, size=size, own_rates=own_rates
    )
    lines = lines_of(view, size[0])
    assert len(lines) < size[1]
    return lines


def test_view_at_80_and_120_columns(worker: Worker) -> None:
    records = [worker(index, step={**STEP, "wait_share": 0.256}, stat=STAT) for index in range(2)]
    for width in (80, 120):
        lines = drawn(records, size=(width, 24))
        assert lines[0].startswith("first  epoch 4/10  ━━━━")
        assert lines[0].endswith("  35%  3 min 15 s left  45 s so far")
        assert lines[1:] == [
            "24,691 records/s  loss 0.1235  best val_accuracy 0.88 (epoch 3)",
            "worker  activity      step  records/s  waiting  memory",
            "     0  training  50/2,000      1,234      26%  612 MB",
            "     1  training  50/2,000      1,234      26%  612 MB",
        ]
    assert "records/s" not in drawn(records, size=(80, 24), own_rates=False)[2]


def test_long_name_leaves_room_for_the_bar(worker: Worker) -> None:
    line = drawn([worker(0)], size=(80, 24), name="a-very-long-name-of-a-run-" * 4)[0]
    assert line.startswith("a-very-long-name-of-…  epoch 4/10  ━")
    assert line.endswith("45 s so far")


def test_name_of_wide_characters_fits(worker: Worker) -> None:
    for width in (40, 80, 120):
        line = drawn([worker(0)], size=(width, 24), name="訓練データ" * 10)[0]
        assert line.startswith("訓練")
    assert line.endswith("45 s so far")


@pytest.mark.parametrize("width", [1, 5, 10, 24, 40, 60])
@pytest.mark.parametrize("height", [2, 3, 5, 6, 10])
def test_small_terminal_is_never_exceeded(worker: Worker, width: int, height: int) -> None:
    records = [worker(index, step=STEP, stat=STAT) for index in range(40)]
    lines = drawn(records, size=(width, height), name="a-very-long-name")
    assert len(lines) < height
    assert max(map(cell_len, lines)) <= width


def test_narrow_terminal_keeps_the_first_parts(worker: Worker) -> None:
    assert drawn([worker(0, step=STEP, stat=STAT)], size=(34, 10), name="first") == [
        "first  epoch 4/10  35%",
        "24,691 records/s  loss 0.1235",
        "worker  activity      step",
        "     0  training  50/2,000",
    ]


def test_workers_that_need_attention_come_first(worker: Worker) -> None:
    records = [
        worker(index, step={**STEP, "wait_share": 0.01 * (index == 9)}) for index in range(40)
    ]
    records[30] = worker(30, step=STEP, exit={"code": -9})
    rows = drawn(records, size=(80, 8))[3:]
    assert [row.split()[0] for row in rows] == ["0", "9", "30", "…"]
    assert rows[-1].endswith("37 more: training")


def test_view_before_the_first_step_has_a_timer(worker: Worker) -> None:
    waiting = JobProgress((Activity("waiting for all workers", 12.0, (0,)),))
    assert drawn([worker(0)], size=(80, 24), progress=waiting)[0] == (
        "first  waiting for all workers 12 s  45 s so far"
    )
    line = waiting_view("importing TensorFlow", name="first", seconds=3.4, width=80)
    assert lines_of(line, 80) == ["first  importing TensorFlow 3.4 s"]


def test_program_without_total_has_no_bar(worker: Worker) -> None:
    progress = JobProgress((Activity("training", 9.0, (0,)),), step=1700)
    assert drawn([worker(0)], size=(80, 24), progress=progress)[:2] == [
        "first  step 1,700  45 s so far",
        "",
    ]
