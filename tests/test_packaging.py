"""The wheel: its contents, and that it works without the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
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
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
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
