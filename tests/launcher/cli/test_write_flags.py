"""The progress of a write: a bar on a terminal, plain lines elsewhere."""

import io

import pytest

from tenfold.data.writing.write_shards import Progress
from tenfold.launcher.cli import write_flags
from tenfold.launcher.cli.write_flags import WriteProgress

HALF = Progress(records=500, total_records=1000, bytes=10**6, shards=2, total_shards=4)
TEXT = "500 of 1,000 records (50 %), 1 MB, 2 of 4 shards, "


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown_on(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, progress: Progress) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(write_flags, "_LINE_INTERVAL_S", 0.0)
    monkeypatch.setattr(write_flags, "_BAR_INTERVAL_S", 0.0)
    with WriteProgress() as shown:
        shown.show(progress)
    return stream.getvalue()


def test_progress_in_a_log_is_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = shown_on(io.StringIO(), monkeypatch, HALF)
    assert printed.startswith(TEXT)
    assert printed.count("\n") == 1
    assert "\x1b" not in printed


def test_progress_on_a_terminal_is_a_transient_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = shown_on(Terminal(), monkeypatch, HALF)
    assert TEXT in printed
    assert "━" in printed
    assert printed.endswith("\x1b[2K"), "the bar is not erased at the end"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_nothing_to_write_shows_no_progress(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Progress(records=0, total_records=0, bytes=0, shards=0, total_shards=0)
    assert shown_on(stream(), monkeypatch, nothing) == ""


def test_bar_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool forks its processes only while the process has one thread."""
    import threading

    before = threading.active_count()
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(write_flags, "_BAR_INTERVAL_S", 0.0)
    with WriteProgress() as shown:
        shown.show(HALF)
        assert threading.active_count() == before
