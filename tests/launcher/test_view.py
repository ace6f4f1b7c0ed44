"""What a person sees of a running job."""

import io
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest
from rich.console import Console

from tenfold.launcher.events import WorkerEvent
from tenfold.launcher.records import WorkerRecord
from tenfold.launcher.table import TableView, make_table
from tenfold.launcher.view import PlainView, progress_line

TENFOLD = (sys.executable, "-P", "-m", "tenfold")


def step(**data):
    return WorkerEvent(kind="step", worker=0, phase="training", data={"step": 7, **data})


def record_at(index, **data):
    record = WorkerRecord(index)
    record.take_event(step(total_steps=90, **data), 1.0)
    return record


def test_workers_that_are_alike_are_told_once():
    alike = [record_at(index, loss=0.5) for index in range(4)]
    assert progress_line(alike) == "all 4 workers: training, step 7/90, loss 0.5"
    alike[2].take_event(WorkerEvent("phase", 2, "checkpoint"), 2.0)
    assert "worker 2: checkpoint, step 7/90" in progress_line(alike)


def test_plain_lines_leave_out_start_up_noise():
    stream = io.StringIO()
    view = PlainView(stream)
    view.line(1, "I0000 00:00:1795343440.800338    9148 port.cc:153] oneDNN custom operations")
    view.line(1, "2026-01-01 10:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN")
    view.line(1, "hello")
    view.line(0, "E0000 00:00:1795343407.693237    6931 ring_alg.cc:291] Aborting RingReduce")
    assert stream.getvalue().splitlines() == [
        "[worker 1] hello",
        "[worker 0] E0000 00:00:1795343407.693237    6931 ring_alg.cc:291] Aborting RingReduce",
    ]
    everything = PlainView(stream, show_tf_logs=True)
    everything.line(1, "I0000 00:00:1795343440.800338    9148 port.cc:153] oneDNN custom")
    assert "oneDNN" in stream.getvalue()


def test_the_table_has_a_row_per_worker():
    records = [record_at(0, loss=0.25, records_per_s=1234.5, wait_share=0.1), WorkerRecord(1)]
    records[0].rss_bytes = 512 * 10**6
    out = io.StringIO()
    Console(file=out, width=100).print(make_table(records, seconds=12))
    rows = out.getvalue().splitlines()
    assert re.search(r"0 .*training .*7/90 .*0\.25 .*1,23[45] .*10% .*512 MB", "\n".join(rows))
    assert any(re.search(r"1 .*starting", row) for row in rows)


def test_markup_in_a_workers_output_is_text():
    out = io.StringIO()
    view = TableView(Console(file=out, width=200))
    view.line(3, "[/red] [bold]not markup[/bold] :smile:")
    assert "[worker 3] [/red] [bold]not markup[/bold] :smile:" in out.getvalue()


@pytest.mark.timeout(60)
def test_on_a_terminal_there_is_a_live_table(tmp_path):
    """A real launch on a pseudo-terminal: the table comes, is renewed, and goes."""
    program = (
        "import tenfold, time\n"
        "worker = tenfold.worker()\n"
        "for step in range(1, 16):\n"
        "    time.sleep(0.1); worker.report(step=step, total_steps=15, loss=1.5)\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*TENFOLD, "launch", "--num_workers=2", "--", sys.executable, "-c", program],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    seen = read_all(ours)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert b"succeeded" in out
    assert "worker" in seen
    assert "records/s" in seen
    steps = {int(number) for number in re.findall(r"(\d+)/15", seen)}
    assert len(steps) >= 3


def read_all(fd, timeout_s=50):
    data, end = b"", time.monotonic() + timeout_s
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.5)[0]:
            try:
                chunk = os.read(fd, 65536)
            except OSError:  # the other side is closed
                break
            data += chunk
    return data.decode(errors="replace")
