"""Ctrl-C during a command: exit status 130, one line, and nothing left behind."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tenfold.data.writing.ledger import KEYS_NAME, WORK
from tenfold.launcher.cli.commands import report
from tenfold.launcher.cli.main import main
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec
from tenfold.launcher.job.run_dir import RunDir
from tenfold.launcher.worker.python_argv import module_argv

pytestmark = pytest.mark.timeout(240)

Process = subprocess.Popen[str]
Begin = Callable[..., Process]

# With HOLD set, records wait as soon as one shard is complete: the write stays unfinished.
HOLD = """
import os, pathlib, time
def hold(features):
    folder = os.environ.get("HOLD")
    while folder and list(pathlib.Path(folder).glob("*.tfrecord")):
        time.sleep(0.01)
    return features
"""


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start the command line as a shell does: in a process group of its own."""
    begun: list[Process] = []
    (tmp_path / "tmp").mkdir()

    def start(*arguments: str, **environment: str) -> Process:
        process = subprocess.Popen(
            module_argv("tenfold", list(arguments)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), **environment},
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def interrupt(process: Process, tmp_path: Path) -> list[str]:
    """Send SIGINT to the whole group, as Ctrl-C does; returns the lines of standard error."""
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert out == ""
    assert list((tmp_path / "tmp").iterdir()) == []
    lines = err.splitlines()
    assert lines[-1] == "tenfold: interrupted"
    return lines[:-1]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.iterdir()}


def reads_shards(process: Process) -> bool:
    """Whether the process, or a descendant, has a shard open."""
    try:
        parent = psutil.Process(process.pid)
        family = [parent, *parent.children(recursive=True)]
        opened = [file.path for member in family for file in member.open_files()]
    except psutil.Error:  # a process has just started or ended
        return False
    assert process.poll() is None, process.communicate()
    return any(path.endswith(".tfrecord") for path in opened)


@pytest.mark.parametrize("processes", [1, 2])
def test_interrupted_write_can_be_resumed(
    begin: Begin, until: Callable[..., None], tmp_path: Path, processes: int
) -> None:
    (tmp_path / "hold.py").write_text(HOLD)
    (tmp_path / "rows.tsv").write_text("n\tr\n" + "".join(f"{n}\t{n % 7}\n" for n in range(900)))

    def write(output: Path, **environment: str) -> Process:
        flags = ("--num_workers=4", "--min_shard_size=1B", "--transform=hold.py:hold")
        where = ("--source=rows.tsv", f"--output={output}", f"--processes={processes}")
        return begin("write", *where, *flags, **environment)

    output = tmp_path / "output"

    def receipts() -> int:
        return len({*output.glob(f"{WORK}/*.json")} - {output / KEYS_NAME})

    stopped = write(output, HOLD=str(output))
    # One shard is complete and has its receipt, and another has been started.
    until(lambda: receipts() and [*output.glob(".*.tmp")])
    lines = interrupt(stopped, tmp_path)
    assert lines[0].startswith("train: 900 records in 40 shards")
    assert not [line for line in lines if line.startswith("tenfold") or "Traceback" in line]
    assert [path.name for path in output.rglob("*.tmp")] == []
    kept, whole = receipts(), len(list(output.glob("*.tfrecord")))
    # Each process may stop between a shard and its receipt: that shard is written again.
    assert 1 <= kept <= whole <= kept + processes < 40
    out, err = write(output).communicate()
    assert f"40 shards ({kept} kept from an earlier write)" in out, err
    assert write(tmp_path / "at once").wait() == 0
    assert contents(output) == {
        path.replace("at once", "output"): data
        for path, data in contents(tmp_path / "at once").items()
    }


def test_verify_can_be_interrupted(
    begin: Begin, until: Callable[..., None], digit_shards: Path, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(digit_shards, shards)
    for shard in shards.glob("*.tfrecord"):
        os.truncate(shard, 1 << 40)  # sparse: takes no space on disk
    process = begin("verify", f"--shards={shards}", "--processes=2")
    until(lambda: reads_shards(process))
    assert interrupt(process, tmp_path) == []


@pytest.mark.slow
def test_bench_can_be_interrupted(
    begin: Begin, until: Callable[..., None], digit_shards: Path, tmp_path: Path
) -> None:
    process = begin("bench", f"--shards={digit_shards}", "--seconds=60", "--decoder=tf")
    until(lambda: reads_shards(process))
    assert interrupt(process, tmp_path) == []


@pytest.fixture
def held_run(tmp_path: Path) -> Iterator[Path]:
    """The run directory of a running job."""
    run_dir = tmp_path / "run"
    held = RunDir(run_dir)
    held.write_job(JobSpec(("true",), 1, str(run_dir)), ClusterSpec(("h:1",)))
    yield run_dir
    held.close()


def test_interrupted_report_writes_a_page_without_reload(
    begin: Begin, held_run: Path, tmp_path: Path
) -> None:
    run_dir = held_run
    process = begin("report", str(run_dir), "--interval=60")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == f"{run_dir / 'report.html'}\n"
    assert "Ctrl-C to stop" in process.stderr.readline()
    assert 'http-equiv="refresh"' in (run_dir / "report.html").read_text()
    assert interrupt(process, tmp_path) == []
    assert 'http-equiv="refresh"' not in (run_dir / "report.html").read_text()
    names = {path.name for path in run_dir.iterdir()}
    assert names == {"job.json", "lock", "report.html", ".reserve"}


def test_report_can_be_interrupted_at_its_first_line(
    held_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(text: str, **_: object) -> None:
        if "Ctrl-C to stop" in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(report, "print", interrupted, raising=False)
    assert main(["report", str(held_run)]) == 130
    assert 'http-equiv="refresh"' not in (held_run / "report.html").read_text()
