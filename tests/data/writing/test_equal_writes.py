"""Equal writes into one folder at the same time, in real processes: one wins, nothing is left."""

import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tenfold.data.format.manifest import MANIFEST_NAME
from tenfold.data.integrity.verify_shards import verify_shards
from tenfold.data.storage.local_folder import LocalFolder, temporary_beside
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.output_folder import remove_temporaries
from tenfold.data.writing.tfds_metadata import NAMES

BUSY = "is being written to by another process"

# Arguments: output, name, moment to wait at ("" for none), writer, writers, 1 for locks.
# A waiting writer creates NAME.ready beside the output and waits for the file NAME.go.
WRITER = """
import errno, sys, time
from pathlib import Path
from types import SimpleNamespace
from tenfold.data.errors import JobError, UserError
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.writing import write_shards as module

output, name, moment, writer, writers, locks = sys.argv[1:]
here = Path(output).parent

def wait(*_):
    (here / f"{name}.ready").touch()
    end = time.monotonic() + 200
    while not (here / f"{name}.go").exists():
        if time.monotonic() > end:  # the test has ended without a word
            os._exit(9)
        time.sleep(0.005)

def without_locks(*_):
    raise OSError(errno.EBADF, "no locks, as on NFS")

if locks == "0":
    from tenfold.data.writing import output_folder
    output_folder.fcntl = SimpleNamespace(flock=without_locks, LOCK_EX=2, LOCK_SH=1, LOCK_NB=4)
waits = {moment: wait}
if moment == "publish":
    publish = module.publish
    module.publish = lambda *args: (wait(), publish(*args))[1]
try:
    result = module.write_shards(
        [{"x": number, "text": "x" * 50} for number in range(200)],
        output,
        options=module.WriteOptions(
            policy=LayoutPolicy(num_workers=4, min_shard_bytes=500),
            processes=1,
            writer_index=int(writer),
            num_writers=int(writers),
        ),
        on_plan=waits.get("plan", lambda plan: None),
        on_progress=waits.get("progress", lambda progress: None),
    )
except (JobError, UserError) as error:
    sys.exit(str(error))
"""


class Writers:
    """Starts writers of equal shards into one folder."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "out"
        self._folder = folder

    def start(
        self, name: str, moment: str = "", *, writer: int = 0, writers: int = 1, locks: bool = True
    ) -> "subprocess.Popen[str]":
        arguments = [str(self.output), name, moment, str(writer), str(writers), str(int(locks))]
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments], stderr=subprocess.PIPE, text=True
        )
        if moment:
            until = time.monotonic() + 60
            while not (self._folder / f"{name}.ready").exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < until
                time.sleep(0.005)
        return process

    def go(self, *names: str) -> None:
        for name in names:
            (self._folder / f"{name}.go").touch()

    def check(self) -> None:
        """Check that the data set is whole, and that nothing else is in the folder."""
        manifest = read_manifest(str(self.output))
        shards = {shard.name for split in manifest.splits for shard in split.shards}
        left = {path.name for path in self.output.iterdir()} - shards
        assert left - set(NAMES) == {MANIFEST_NAME}
        assert not verify_shards(str(self.output), manifest).problems


@pytest.fixture
def writers(tmp_path: Path) -> Writers:
    return Writers(tmp_path)


def outcome(process: "subprocess.Popen[str]") -> str:
    """Wait for a process; return "" for success, or its error."""
    _, errors = process.communicate(timeout=100)
    assert "Traceback" not in errors, errors
    assert (process.returncode == 0) == (errors == ""), errors
    return errors


@pytest.mark.parametrize("moment", ["progress", "publish"])
def test_second_equal_write_is_refused_in_one_line(writers: Writers, moment: str) -> None:
    first = writers.start("first", moment)
    refused = outcome(writers.start("second"))
    assert BUSY in refused
    assert refused.count("\n") == 1
    writers.go("first")
    assert outcome(first) == ""
    writers.check()


def test_killed_write_does_not_block_the_next(writers: Writers) -> None:
    killed = writers.start("killed", "progress")
    killed.kill()
    killed.communicate()
    assert outcome(writers.start("next")) == ""
    writers.check()


def test_later_equal_write_finds_finished_data_set(writers: Writers) -> None:
    second = writers.start("second", "plan")
    assert outcome(writers.start("first")) == ""
    written = (writers.output / MANIFEST_NAME).stat().st_mtime_ns
    writers.go("second")
    assert outcome(second) == ""
    assert (writers.output / MANIFEST_NAME).stat().st_mtime_ns == written
    writers.check()


def test_single_writer_and_several_exclude_each_other(writers: Writers) -> None:
    one_of_two = writers.start("one-of-two", "progress", writer=0, writers=2)
    assert BUSY in outcome(writers.start("single"))
    assert outcome(writers.start("other", writer=1, writers=2)) == ""
    writers.go("one-of-two")
    assert outcome(one_of_two) == ""
    writers.check()


def test_same_writer_of_several_twice_leaves_nothing(writers: Writers) -> None:
    twins = [writers.start(name, "progress", writer=0, writers=2) for name in ("a", "b")]
    other = writers.start("other", writer=1, writers=2)
    writers.go("a", "b")
    assert [outcome(process) for process in (*twins, other)] == ["", "", ""]
    writers.check()


def test_second_write_without_locks_leaves_nothing(writers: Writers) -> None:
    """On storage without locks both write the same bytes; the later publisher cleans up."""
    first = writers.start("first", "progress", locks=False)
    assert outcome(writers.start("second", locks=False)) == ""
    writers.go("first")
    assert outcome(first) == ""
    writers.check()


@pytest.mark.parametrize("round_", range(3))
def test_simultaneous_equal_writes_have_one_winner(writers: Writers, round_: int) -> None:
    names = ("a", "b", "c")
    processes = [writers.start(name, "plan") for name in names]
    writers.go(*names)
    outcomes = [outcome(process) for process in processes]
    assert "" in outcomes, outcomes
    assert all(error == "" or BUSY in error for error in outcomes), outcomes
    writers.check()


def test_temporary_files_in_use_are_kept(tmp_path: Path) -> None:
    folder = LocalFolder(str(tmp_path))
    used, left = temporary_beside(tmp_path / "shard"), temporary_beside(tmp_path / "shard")
    left.touch()
    with open(used, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_temporaries(folder, ["shard"], keep_live=True)
        assert list(tmp_path.iterdir()) == [used]
    remove_temporaries(folder, ["shard"], keep_live=True)
    assert not list(tmp_path.iterdir())
