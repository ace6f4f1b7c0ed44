"""Model names, and models of the user's own in packages called like ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from tenfold.data.errors import UserError
from tenfold.models.model_registry import (
    built_in_name,
    check_model_name,
    check_own_name,
    find_model,
)

FIND = """
import sys
from tenfold.models.model_registry import find_model
print(find_model(sys.argv[1], working_dir=sys.argv[2])())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's repository with packages called data and models of its own."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "__init__.py").write_text("NAME = 'their data'\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    code = "import data\nfrom tenfold.data.units import parse_size\n"
    code += "def build():\n    return f'{data.NAME}, {parse_size(\"1KB\")}'\n"
    (tmp_path / "models" / "net.py").write_text(code)
    (tmp_path / "train.py").write_text(code)
    return tmp_path


@pytest.mark.parametrize("name", ["models.net:build", "train.py:build"])
def test_user_packages_called_data_and_models_work(project: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIND, name, str(project)],
        cwd=project.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "their data, 1000\n"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("cnnn", "did you mean 'cnn'"),
        ("models.net:", "write module:name"),
        ("x:1+1", "write module:name"),
        ("keras:", "write keras:NAME, as keras:EfficientNetV2B0"),
        ("absent.py:build", "there is no file"),
    ],
)
def test_wrong_model_name_is_refused_without_import(project: Path, name: str, word: str) -> None:
    with pytest.raises(UserError, match=word):
        check_model_name(name, working_dir=str(project))


@pytest.mark.parametrize(
    ("name", "built_in"),
    [
        ("cnn", "cnn"),
        ("unet:21", "unet"),
        ("unet:build", ""),
        ("cnn:21", ""),
        ("keras:ResNet50", "keras"),
        ("keras", ""),
        ("my.keras:build", ""),
    ],
)
def test_built_in_models_may_have_an_argument(name: str, built_in: str) -> None:
    assert built_in_name(name) == built_in


def test_missing_module_or_function_is_refused(project: Path) -> None:
    with pytest.raises(UserError, match=r"no module 'no_such_package\.net'"):
        find_model("no_such_package.net:build", working_dir=str(project))
    with pytest.raises(UserError, match="has no 'biuld'"):
        find_model("train.py:biuld", working_dir=str(project))


def test_missing_package_is_named_with_its_install_line(project: Path) -> None:
    (project / "broken.py").write_text("import yaml_that_is_not_there.x\nbuild = 1\n")
    with pytest.raises(UserError, match="python -m pip install yaml_that_is_not_there'"):
        find_model("broken:build", working_dir=str(project))


NET = """
from functools import partial
def build(spec): ...
def build_deep(spec): ...
def _helper(): ...
class Stop: ...
if True:
    small = partial(build, 1)
"""


@pytest.mark.parametrize(
    ("name", "what", "word"),
    [
        ("net.py:biuld", "model", r"net\.py has no 'biuld': did you mean 'build'\?"),
        ("net:zzz", "model", r"net\.py has no 'zzz': there are: build, build_deep$"),
        ("net.py", "model", r"net\.py:build, net\.py:build_deep$"),
        ("net.py:stop", "callback", r"did you mean 'Stop'\?"),
        ("absent.py", "model", "there is no file"),
        ("wrong.py:build", "model", r"wrong\.py, line 2: "),
        ("net.py:small", "model", ""),
        ("net.py:partial", "model", ""),
        ("open.py:anything", "model", ""),
        ("package.net:anything", "model", ""),
    ],
)
def test_names_in_files_are_checked_by_text(tmp_path: Path, name, what, word) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "open.py").write_text("from elsewhere import *\n")
    (tmp_path / "wrong.py").write_text("import os\ndef build(:\n")

    def check() -> None:
        if what == "model":
            check_model_name(name, working_dir=str(tmp_path))
        else:
            check_own_name(name, working_dir=str(tmp_path), what=what)

    if not word:
        check()
        return
    with pytest.raises(UserError, match=word):
        check()
