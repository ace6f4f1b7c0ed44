"""Environments without TensorFlow, or with one that is too old: the supervisor works in both."""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.runtime.tensorflow_version import REQUIREMENT, version_problem
from tenfold.launcher.backends.ports import pick_ports

# README.md names the first five; the others are rich's dependencies.
PACKAGES = (
    "absl-py",
    "cityhash",
    "google-crc32c",
    "psutil",
    "rich",
    "markdown-it-py",
    "mdurl",
    "pygments",
)
OLD = "2.15.1"
VERSIONS = [None, OLD]


@pytest.fixture(scope="module", params=VERSIONS, ids=["no tensorflow", OLD])
def version(request: pytest.FixtureRequest) -> str | None:
    """The version of TensorFlow that the environment has."""
    version: str | None = request.param
    return version


@pytest.fixture(scope="module")
def python(version: str | None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with tenfold and PACKAGES only.

    TensorFlow is a stand-in that has only a version: whoever uses more of it fails.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # Without the current folder, where a checkout has the metadata of its last build.
    path = [entry for entry in sys.path if entry.endswith("site-packages")]
    for name in ("tenfold", *PACKAGES):
        distribution = next(iter(importlib.metadata.distributions(name=name, path=path)))
        assert distribution.files is not None, name
        for top in {path.parts[0] for path in distribution.files} - {"..", "__pycache__"}:
            (site / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    if version is not None:
        (site / "tensorflow.py").write_text(f"__version__ = {version!r}\n")
        metadata = site / f"tensorflow-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Name: tensorflow\nVersion: {version}\n")
    return str(folder / "bin" / "python")


@pytest.fixture
def run(python: str, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the command line in that environment."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [python, "-m", "tenfold", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_supervisor_needs_no_tensorflow(run: Any, python: str, digits: Path) -> None:
    program = ("--num_workers=2", "--run_dir=run", "--", python, "-c", "print('hello')")
    for arguments, words in (
        (("plan", "--dataset_size=10GB", "--num_workers=4"), "40 of 250 MB"),
        (("plan", f"--source={digits}", "--num_workers=2"), "1,797 examples"),
        (("write", f"--source={digits}", "--output=shards"), "1,797 records"),
        (("verify", "--shards=shards"), "every byte"),
        (("doctor", *program), "nothing is wrong"),
        (("launch", *program), "succeeded"),
        (("status", "run"), "succeeded"),
        (("logs", "run"), "[worker 1] hello"),
        (("list", "."), "succeeded"),
        (("report", "run"), "report.html"),
    ):
        done = run(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        assert words in done.stdout, arguments


def test_what_needs_tensorflow_says_so_in_one_line(
    run: Any, version: str | None, digit_shards: Path
) -> None:
    shards = f"--shards={digit_shards}"
    words = (version or "no TensorFlow", REQUIREMENT, "tenfold launch -- program")
    for arguments in (
        ("launch", shards, "--num_workers=2", "--run_dir=training"),
        ("bench", shards),
    ):
        done = run(*arguments)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert all(word in line for word in words), line


def test_worker_of_the_trainer_says_so_in_one_line(
    run: Any, digit_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, where no supervisor has looked at the host before."""
    (port,) = pick_ports("127.0.0.1", 1)
    cluster = {"worker": [f"127.0.0.1:{port}"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    done = run("launch", "--backend=join", f"--shards={digit_shards}", "--run_dir=joined")
    assert done.returncode == 1, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "UserError" in line)
    assert REQUIREMENT in line
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("good", ["2.16.2", "2.21.0", "2.17.0+nv25.2", "3.0.0rc1"])
def test_versions_of_the_range_are_no_problem(good: str) -> None:
    assert version_problem(good, where="here") == ""


def test_range_is_that_of_the_dependency() -> None:
    project = Path(__file__).parents[3] / "pyproject.toml"
    assert f'    "{REQUIREMENT}",' in project.read_text().splitlines()
