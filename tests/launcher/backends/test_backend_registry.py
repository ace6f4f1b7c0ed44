"""Back ends by name: built-in ones, files and modules of the user's own."""

from pathlib import Path

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.backends.backend_registry import (
    BACKENDS,
    backend_options,
    load_backend,
    load_submitter,
)
from tenfold.launcher.backends.local import LocalBackend

OWN = """
from types import SimpleNamespace

from tenfold.launcher.backends.base import Option
from tenfold.launcher.backends.local import LocalBackend

OPTIONS = (Option("lane_of_test", "where to queue"),)

def create(options):
    backend = LocalBackend()
    backend.options = dict(options)
    return backend

fast = SimpleNamespace(OPTIONS=(), create=create)
incomplete = SimpleNamespace(OPTIONS=())
"""


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "own_backend_of_test.py"
    file.write_text(OWN)
    return file


@pytest.mark.parametrize("form", ["{file}", "{file}:fast", "{file.stem}:fast"])
def test_own_backend_is_loaded(own_file: Path, form: str) -> None:
    backend = load_backend(form.format(file=own_file))
    assert isinstance(backend, LocalBackend)
    assert load_submitter(form.format(file=own_file)) is None


def test_own_backend_gets_its_options(own_file: Path) -> None:
    backend = load_backend(str(own_file), {"lane_of_test": "long"})
    assert vars(backend)["options"] == {"lane_of_test": "long"}
    assert set(backend_options(str(own_file))) == {*BACKENDS, str(own_file)}
    with pytest.raises(UserError, match=r"--hosts is for --backend=ssh, not for .*own_backend"):
        load_backend(str(own_file), {"hosts": "a"})


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("slrm", "unknown back end 'slrm': did you mean 'slurm'?"),
        ("frobnicate", "there are: local, netns, ssh, slurm, kubernetes"),
        ("{folder}/nowhere.py", "does not exist"),
        ("{file}:nothing", "has no 'nothing'"),
        ("{file}:incomplete", "needs OPTIONS and a function create"),
        ("no_such_module_of_test:create", "there is no module"),
    ],
)
def test_unusable_backend_is_refused(own_file: Path, form: str, words: str) -> None:
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace("?", r"\?")):
        load_backend(form.format(file=own_file, folder=own_file.parent))


def test_backend_file_that_raises_is_a_user_error(tmp_path: Path) -> None:
    file = tmp_path / "raising_backend_of_test.py"
    file.write_text("1 / 0\n")
    with pytest.raises(UserError, match="cannot be imported: ZeroDivisionError"):
        load_backend(str(file))


def test_own_options_are_flags_of_launch(tenfold, own_file, tmp_path):
    flagfile = tmp_path / "flags"
    flagfile.write_text(f"--backend={own_file}\n")
    for argument in (f"--backend={own_file}", f"--flagfile={flagfile}"):
        done = tenfold("launch", argument, "--help")
        assert (done.status, done.err) == (0, "")
        assert f"\n\nBack end {own_file}\n  --lane_of_test=…" in done.out
    done = tenfold(
        "launch", "--lane_of_test", "long", "--backend", own_file, "--dry_run", "--", "true"
    )
    assert (done.status, done.err) == (0, "")
    done = tenfold("launch", "--lane_of_test=long", "--dry_run", "--", "true")
    assert (done.status, "unknown flag --lane_of_test" in done.err) == (2, True)


def test_own_options_may_share_names_with_other_backends(tenfold, own_file):
    own_file.write_text(OWN.replace('"lane_of_test"', '"hosts"'))
    done = tenfold("launch", f"--backend={own_file}", "--hosts=a", "--dry_run", "--", "true")
    assert (done.status, done.err) == (0, "")


def test_own_option_named_like_a_flag_is_refused(tenfold, own_file):
    own_file.write_text(OWN.replace('"lane_of_test"', '"epochs"'))
    done = tenfold("launch", f"--backend={own_file}", "--dry_run", "--", "true")
    assert done.status == 2
    assert "has an option --epochs, which is a flag of launch already" in done.err
