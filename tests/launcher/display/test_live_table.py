"""The live view in a real pseudo-terminal, read through a terminal emulator."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable, Iterator

import pyte
import pytest

# Shows a job of two workers; waits for a line of input after each part.
PROGRAM = """
    import select, sys, time
    from tenfold.launcher.display.open_view import open_view
    from tenfold.launcher.job.events import Epoch, Phase, Step, WorkerEvent
    from tenfold.launcher.job.job_spec import JobSpec
    from tenfold.launcher.job.worker_record import WorkerRecord
    from tenfold.models.train_config import TrainConfig

    train = TrainConfig("shards", "runs/first", epochs=4)
    view = open_view(JobSpec(("python",), 2, "runs/first", train=train), show_tf_logs=False)
    records = [WorkerRecord(index) for index in range(2)]

    def show(call):
        while not select.select([sys.stdin], [], [], 0.02)[0]:
            call()
        input()

    def tell(message, phase="training"):
        for record in records:
            event = WorkerEvent(record.index, phase, message)
            record.take_event(event, time.time())
            view.event(record.index, event)

    show(lambda: view.wait("importing TensorFlow, once for all workers"))
    tell(Phase(), "build")
    view.note("a note of the supervisor")
    show(lambda: view.tick(records))
    for epoch in range(3):
        tell(Step(100 * (epoch + 1), epoch, 400, 0.5 / (epoch + 1), 1000.0, 0.03))
        view.tick(records)
        time.sleep(0.05)
        sentences = ("50 of 50 records, each read once", f"compute-bound: wait {epoch}% of it")
        tell(Epoch(epoch, 4, 0.5, {"val_accuracy": 0.9 - epoch / 10}, 900.0, sentences))
    view.line(1, "a line of the program, " + "long " * 30 + "end")
    show(lambda: view.tick(records))
    view.close()
    print("succeeded")
    input()
"""


class Terminal:
    """A terminal of a size in which the program runs."""

    def __init__(self, columns: int, rows: int) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self._terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        settings = termios.tcgetattr(inner)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(inner, termios.TCSANOW, settings)
        env = {name: value for name, value in os.environ.items() if name not in
               ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM)],
            stdin=inner, stdout=inner, stderr=inner, env={**env, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(inner)

    def lines(self) -> list[str]:
        """The lines of the screen, and those above that have scrolled away, without empty ones."""
        width = self.screen.columns
        above = ["".join(row[x].data for x in range(width)) for row in self.screen.history.top]
        return [line.rstrip() for line in [*above, *self.screen.display] if line.strip()]

    def read_until(self, holds: Callable[[str], bool], timeout_s: float = 60) -> str:
        """Read until the text of the lines satisfies `holds`; return it."""
        end = time.monotonic() + timeout_s
        while not holds(text := "\n".join(self.lines())):
            assert time.monotonic() < end, text
            if select.select([self._terminal], [], [], 0.1)[0]:
                self._stream.feed(os.read(self._terminal, 65536))
        return text

    def go_on(self) -> None:
        """Let the program go on."""
        os.write(self._terminal, b"\n")

    def close(self) -> None:
        """End the program."""
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def open_terminal() -> Iterator[Callable[[int, int], Terminal]]:
    """Run the program in a terminal of a size."""
    opened: list[Terminal] = []

    def make(columns: int, rows: int) -> Terminal:
        opened.append(Terminal(columns, rows))
        return opened[-1]

    yield make
    for terminal in opened:
        terminal.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 24), (50, 5)])
def test_terminal_shows_the_job_and_no_line_twice(
    open_terminal: Callable[[int, int], Terminal], columns: int, rows: int
) -> None:
    terminal = open_terminal(columns, rows)
    shown = terminal.read_until(lambda text: "importing TensorFlow" in text)
    assert shown.startswith("first  importing TensorFlow")
    terminal.read_until(lambda text: bool(re.search(r" (?!0\.0)\d\.\d+ s$", text)))  # the timer
    terminal.go_on()
    shown = terminal.read_until(lambda text: "building the model" in text)
    assert shown.startswith("[tenfold] a note of the supervisor\nfirst  building the model")
    assert "importing" not in shown
    terminal.go_on()
    shown = terminal.read_until(lambda text: "75%" in text and "epoch 3/4:" in text)
    head = next(line for line in shown.split("\n") if line.startswith("first  "))
    assert head.startswith("first  epoch 3/4  ")
    assert "━━━" in head
    assert head.endswith(" so far")
    assert len(head) == columns
    assert shown.count("best val_accuracy 0.9 (epoch 1)") == 1
    assert shown.count("worker  activity") == (rows > 5)
    terminal.go_on()
    shown = terminal.read_until(lambda text: "succeeded" in text)
    assert "worker  activity" not in shown  # the live lines are gone, the printed ones stay
    assert "so far" not in shown
    joined = shown.replace("\n", "").replace(" ", "")
    for text in (
        "[tenfold] a note of the supervisor",
        "epoch 1/4: loss 0.5, val_accuracy 0.9; 900 records/s",
        "epoch 2/4: loss 0.5, val_accuracy 0.8; 900 records/s",
        "50 of 50 records, each read once",
        "compute-bound: wait 0% of it",
        f"[worker 1] a line of the program, {'long ' * 30}end",
    ):
        assert joined.count(text.replace(" ", "")) == 1, text
    assert "compute-bound:wait1%" not in joined
    terminal.go_on()
    assert terminal.process.wait(90) == 0
