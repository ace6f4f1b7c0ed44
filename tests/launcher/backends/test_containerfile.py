"""docs/Containerfile: its commands, run in a fresh environment instead of an image.

What a container builder would add (the base image, the user, the layers) is not shown by this.
"""

import os
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tenfold.launcher.worker.python_argv import remote_module_argv

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(300)


def instructions():
    """Yield (INSTRUCTION, the rest of its line)."""
    for line in (ROOT / "docs" / "Containerfile").read_text().splitlines():
        if line and not line.startswith("#"):
            yield tuple(line.split(maxsplit=1))


class Builder:
    """A folder that stands for the image's root, with a Python environment of its own."""

    def __init__(self, root):
        self.root = root
        venv.create(root / "venv", with_pip=True)
        pip = [str(root / "venv" / "bin" / "python"), "-m", "pip"]
        # A real image downloads setuptools for the build; here it is installed already.
        subprocess.run([*pip, "uninstall", "--yes", "setuptools"], capture_output=True)
        # All downloads of the image are installed already, except tenfold.
        (site,) = (root / "venv").glob("lib/python*/site-packages")
        here = next(path for path in sys.path if path.endswith("site-packages"))
        (site / "there.pth").write_text(here + "\n")
        self.environment = {
            "PATH": f"{root / 'venv' / 'bin'}:{os.environ['PATH']}",
            "HOME": str(root),
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the value of --build-isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def copy(self, words):
        *sources, target = words
        folder = self.root / target.strip("/")
        for name in sources:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder)

    def run(self, command):
        command = command.replace("/src", str(self.root / "src"))
        return subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, cwd=self.root,
            env=self.environment,
        )  # fmt: skip


@pytest.mark.slow
def test_containerfile_commands_install_tenfold(tmp_path):
    builder = Builder(tmp_path)
    lines = list(instructions())
    assert lines[0][0] == "FROM"
    for kind, rest in lines:
        if kind == "ARG":
            name, _, value = rest.partition("=")
            builder.environment[name] = shlex.split(value)[0]
        elif kind == "COPY":
            builder.copy(rest.split())
        elif kind == "RUN":
            done = builder.run(rest)
            assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "src").exists()
    assert 'CMD ["tenfold", "--help"]' in [" ".join(line) for line in lines]
    done = builder.run("tenfold --help && python -c 'import tenfold; print(tenfold.__file__)'")
    assert done.returncode == 0, done.stderr
    assert "launch" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(str(tmp_path / "venv"))
    pod = builder.run(
        shlex.join(remote_module_argv("tenfold.launcher.supervisor.members.pod", python="python"))
    )
    assert (pod.returncode, pod.stderr[:9]) == (2, "tenfold: ")
