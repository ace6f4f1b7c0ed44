"""Fixtures that several folders of tests share."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

from tenfold.data.runtime.deferred_keras import defer_unused_keras_modules

# No deadline for examples: the machine may stall for a moment.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# As in the workers: many tests import TensorFlow, which imports Keras.
defer_unused_keras_modules()

# Shells start background jobs with SIGINT ignored; processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with slow tests first: short files at the end keep all processes busy."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


TENFOLD = Path(sys.executable).with_name("tenfold")


@dataclass(frozen=True)
class Done:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tenfold() -> Callable[..., Done]:
    """Run the command line in a process and wait for it."""

    def run(*arguments: str, cwd: Path | None = None, **environment: str) -> Done:
        done = subprocess.run(
            [TENFOLD, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, **environment},
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def start_tenfold(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start the command line in a process; kill processes that still run after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        *arguments: str, stderr: int = subprocess.PIPE, **environment: str
    ) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [TENFOLD, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait until a condition holds."""

    def wait(condition: Callable[[], bool], timeout_s: float = 60) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"the condition did not hold within {timeout_s} s"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-folder tree of the 1,797 handwritten digits."""
    folder = tmp_path_factory.mktemp("digits")
    script = Path(__file__).parent.parent / "scripts" / "digits.py"
    subprocess.run([sys.executable, script, folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def write_digits(tenfold: Callable[..., Done], digits: Path) -> Callable[..., None]:
    """Write the digits as shards, 1,617 for training, 180 for validation; take `write` flags."""

    def write(output: Path | str, *flags: str) -> None:
        split = "--split=train:0.9,validation:0.1"
        done = tenfold("write", f"--source={digits}", f"--output={output}", split, *flags)
        assert done.status == 0, done.err

    return write


@pytest.fixture(scope="session")
def digit_shards(
    write_digits: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The digits as shards for 1, 2 and 4 workers."""
    output = tmp_path_factory.mktemp("digit_shards") / "shards"
    write_digits(output, "--num_workers=4", "--worker_counts=1,2,4")
    return output


@pytest.fixture
def damaged_shards(digit_shards: Path, tmp_path: Path) -> Path:
    """The digits as shards, with a broken payload in one training shard."""
    folder = tmp_path / "damaged"
    shutil.copytree(digit_shards, folder)
    shard = sorted(folder.glob("train-*"))[3]
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    return folder


@pytest.fixture
def run_page(tmp_path: Path, digits: Path, digit_shards: Path) -> Callable[..., str]:
    """Run a page of docs with `scripts/run_docs`; return the differences, "" if there are none.

    `run_page("docs/ssh.md", HOST=name)` runs the page in a temporary folder that holds `digits`
    (class folders of images) and `shards` (the same, written for 1, 2 and 4 workers). Keywords
    become environment variables; `prefix` is a command that runs the script elsewhere, as in
    another network namespace.
    """

    def run(name: str, *, prefix: tuple[str, ...] = (), **environment: str) -> str:
        folder = tmp_path / "page"
        folder.mkdir()
        shutil.copytree(digits, folder / "digits", symlinks=True)
        shutil.copytree(digit_shards, folder / "shards")
        root = Path(__file__).parent.parent
        done = subprocess.run(
            [
                *prefix, sys.executable, root / "scripts" / "run_docs", f"--folder={folder}",
                root / name,
            ],
            capture_output=True, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        return f"exit status {done.returncode}\n{done.stderr}" if done.returncode else ""

    return run


@pytest.fixture(scope="session")
def read_metrics() -> Callable[[Path], list[dict[str, Any]]]:
    """Read metrics.jsonl of a run directory."""

    def read(run_dir: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]

    return read


@pytest.fixture(scope="session")
def break_jpeg() -> Callable[[Path], None]:
    """Make a JPEG file undecodable though its header is sound."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        codes = data.index(b"\xff\xc4") + 5  # of the first Huffman table: impossible counts
        data[codes : codes + 16] = bytes([255] * 16)
        path.write_bytes(data)

    return damage


@pytest.fixture
def add_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Add a shell script to the head of the search path."""
    folder = tmp_path / "commands"

    def add(name: str, script: str) -> None:
        if not folder.exists():
            folder.mkdir()
            monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)

    return add


class MakeImage(Protocol):
    def __call__(
        self, *, form: str = "PNG", height: int = 8, width: int = 8, mode: str = "L", seed: int = 0
    ) -> bytes: ...


@pytest.fixture(scope="session")
def make_image() -> MakeImage:
    """Make an encoded image of noise. Equal arguments give equal bytes."""
    from PIL import Image

    def make(
        *, form: str = "PNG", height: int = 8, width: int = 8, mode: str = "L", seed: int = 0
    ) -> bytes:
        channels = len(Image.new(mode, (1, 1)).getbands())
        pixels = random.Random(seed).randbytes(height * width * channels)
        out = io.BytesIO()
        Image.frombytes(mode, (width, height), pixels).save(out, form)
        return out.getvalue()

    return make


@pytest.fixture
def make_class_folder(tmp_path: Path, make_image: MakeImage) -> Callable[..., Path]:
    """Make class folders of small images; the last class has one image fewer."""

    def make(classes: int = 3, each: int = 10, *, form: str = "PNG", name: str = "source") -> Path:
        root = tmp_path / name
        for label in range(classes):
            folder = root / f"class {label}"
            folder.mkdir(parents=True)
            for number in range(each - (label == classes - 1)):
                data = make_image(form=form, seed=1000 * label + number)
                (folder / f"{number:04d}.{form.lower()}").write_bytes(data)
        return root

    return make
