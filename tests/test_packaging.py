"""The wheel: its contents, and that it works without the checkout."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the files that git tracks or would add."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    # Built without isolation, so that it works offline.
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run([sys.executable, *build], check=True, capture_output=True, timeout=220)
    return next(folder.glob("*.whl"))


def test_wheel_has_only_tenfold_at_top_level(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tenfold"}


def test_wheel_has_every_module(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("launcher", "data", "models"):
        for file in (ROOT / folder).rglob("*.py"):
            name = str(file.relative_to(ROOT)).removeprefix("launcher/tenfold/")
            expected = f"tenfold/{name}"
            assert expected in packed, f"{expected}: is its package listed in pyproject.toml?"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that has the wheel and tenfold's dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    # Adds the dependencies of this environment without its editable install of tenfold: Python
    # ignores .pth files in a folder that was itself added by a .pth file.
    # An environment may borrow the packages of another one, so there can be several folders.
    folders = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(folders) + "\n")
    command = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([python, *command], check=True, timeout=220)
    return folder / "bin"


@pytest.mark.slow
@pytest.mark.timeout(300, func_only=True)  # without the time to build and install the wheel
def test_demo_runs_on_installed_wheel(installed: Path, tmp_path: Path) -> None:
    locate = [str(installed / "python"), "-c", "import tenfold.data; print(tenfold.data.__file__)"]
    found = subprocess.run(locate, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(installed.parent)

    environment = {**os.environ, "PATH": f"{installed}:{os.environ['PATH']}"}
    done = subprocess.run(
        [ROOT / "scripts" / "demo_steps", tmp_path / "demo"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "demo" / "run" / "result.json").read_text())
    assert result["state"] == "succeeded"
    assert result["final"]["metrics"]["val_accuracy"] >= 0.95


# mypy --strict finds no error in this program. Every line of `misuse` has an error that the
# comment suppresses; if a public name had no types, mypy would report the comment as unused.
TYPED_PROGRAM = """
import keras
import tensorflow as tf

import tenfold
from tenfold.data import (
    CacheOptions,
    JobError,
    LayoutPolicy,
    Manifest,
    Position,
    ReadOptions,
    Receipt,
    SourceOptions,
    UserError,
    WorkerPlace,
    WriteOptions,
    epoch_receipt,
    evaluation_dataset,
    read_manifest,
    steps_per_epoch,
    training_dataset,
    write_shards,
)
from tenfold.models import ModelSpec

BATCH = 64


def build(spec: ModelSpec) -> keras.Model:
    height, width, channels = spec.image_shape or (8, 8, 1)
    return keras.Sequential(
        [keras.Input((height, width, channels)), keras.layers.Dense(spec.num_classes)]
    )


def write(source: str, shards: str) -> Manifest:
    options = WriteOptions(
        policy=LayoutPolicy(num_workers=2, worker_counts=(1, 2)),
        splits={"train": 0.9, "validation": 0.1},
    )
    write_shards(
        source, shards, options=options, source_options=SourceOptions(), transforms=["resize:8"]
    )
    return read_manifest(shards)


def train(shards: str, start: Position) -> Receipt:
    dataset = training_dataset(
        shards,
        global_batch_size=BATCH,
        options=ReadOptions(image_size=(8, 8), augment="flip", cache=CacheOptions()),
        place=WorkerPlace.from_tf_config(),
        start=start,
        epochs=start.epoch + 1,
        receipt=True,
    )
    worker = tenfold.worker()
    total_steps: int = steps_per_epoch(shards, global_batch_size=BATCH)
    counts = tf.zeros(3, tf.int64)
    for step, (_, _, read) in enumerate(dataset, start.step + 1):
        counts += read
        worker.report(step=step, total_steps=total_steps)
    return epoch_receipt(shards, counts.numpy().tolist())


def main() -> None:
    try:
        num_records: int = write("digits", "shards").split("train").num_records
        receipt = train("shards", Position(epoch=0, step=0))
        print(num_records, receipt.records, receipt.left_out)
        for _ in evaluation_dataset("shards", global_batch_size=BATCH, place=WorkerPlace(0, 1)):
            pass
    except (UserError, JobError) as error:
        raise SystemExit(str(error)) from error


def misuse() -> None:
    ReadOptions(image_size="large")  # type: ignore[arg-type]
    Position(epoch="first")  # type: ignore[arg-type]
    WorkerPlace(workers=2)  # type: ignore[call-arg]
    WriteOptions(process=2)  # type: ignore[call-arg]
    ModelSpec(size=2)  # type: ignore[call-arg]
    training_dataset("shards")  # type: ignore[call-arg]
    evaluation_dataset("shards")  # type: ignore[call-arg]
    write_shards("digits")  # type: ignore[call-arg]
    _ = read_manifest("shards").shards  # type: ignore[attr-defined]
    _ = steps_per_epoch("shards", global_batch_size=BATCH).steps  # type: ignore[attr-defined]
    tenfold.launch(2)  # type: ignore[arg-type]
"""
MYPY_CONFIG = """
[mypy]
strict = True

[mypy-tensorflow.*,keras.*]
ignore_missing_imports = True
follow_imports = skip
"""


@pytest.mark.slow
@pytest.mark.timeout(300, func_only=True)
def test_typed_program_passes_mypy_on_installed_wheel(installed: Path, tmp_path: Path) -> None:
    program, config = tmp_path / "program.py", tmp_path / "mypy.ini"
    program.write_text(TYPED_PROGRAM, encoding="utf-8")
    config.write_text(MYPY_CONFIG, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", f"--config-file={config}"),
            f"--python-executable={installed / 'python'}",
            str(program),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
