"""Secrets of the environment reach the workers, and nothing that others can read."""

import json
import os
import secrets
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)

# Each value holds a random word, which no other test or process of this machine contains.
WORD = secrets.token_hex(4)
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": f"aws-{WORD}",
    "HF_TOKEN": f"hf-{WORD}",
    "WANDB_API_KEY": f"wandb-{WORD}",
    "HTTPS_PROXY": f"http://me:proxy-{WORD}@127.0.0.1:9",
    "PIP_INDEX_URL": f"https://me:pip-{WORD}@index.example/simple",
}
KEY_FILE_WORD = f"private-{WORD}"
WORDS = [*SECRETS.values(), f"proxy-{WORD}", f"pip-{WORD}", KEY_FILE_WORD]


@pytest.fixture
def secret_env(tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"type": "service_account", "private_key": KEY_FILE_WORD}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))


def words_in(text):
    return [word for word in WORDS if word in text]


def files_with_words(folder):
    return {
        str(path): words_in(path.read_text(errors="replace"))
        for path in folder.rglob("*")
        if path.is_file() and words_in(path.read_text(errors="replace"))
    }


class CommandLines:
    """Samples all command lines of this machine while it is a context."""

    def __init__(self):
        self.found = set()
        self.seen = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self):
        while not self._done.wait(0.02):
            for entry in filter(str.isdecimal, os.listdir("/proc")):
                try:
                    text = Path("/proc", entry, "cmdline").read_text(errors="replace")
                except OSError:
                    continue
                self.seen += "tenfold" in text
                if words_in(text):
                    self.found.add(text.replace("\0", " "))


def test_secrets_stay_out_of_files_and_command_lines(launch, place, secret_env, tenfold):
    launch.prefix = place.prefix
    text = """
    token = os.environ.get("HF_TOKEN", "")
    mark(f"got-{index}", str(len(token)))
    for peer in range(count):
        wait_for(f"got-{peer}")
    time.sleep(0.5)  # to be seen
    if index == 1:
        raise ValueError("no")
    time.sleep(60)
    """
    with CommandLines() as lines:
        launch.run(*place.flags, "--num_workers=2", "--pass_env=HF_TOKEN", text=text)
    assert launch.status == 1, launch.err
    assert launch.result["first_failure"]["error"] == "ValueError: no"
    for index in range(2):
        assert (launch.run_dir / f"got-{index}").read_text() == str(len(SECRETS["HF_TOKEN"]))
    assert lines.seen
    assert not lines.found
    assert not words_in(launch.out + launch.err)
    page = tenfold("report", str(launch.run_dir), f"--output={launch.folder}/report.html")
    assert page.status == 0, page.err
    assert (launch.folder / "report.html").exists()
    assert not files_with_words(launch.folder)


PLATFORMS = {
    "slurm": ("--backend=slurm", "--pass_env=HF_TOKEN"),
    "kubernetes": (
        "--backend=kubernetes", "--image=x", "--volumes=v:/r", "--secret_env=HF_TOKEN=hf",
        "--google_credentials=/var/key.json", "--secrets=key:/var",
    ),
}  # fmt: skip


@pytest.mark.parametrize("platform", PLATFORMS)
def test_secrets_stay_out_of_rendered_jobs(tenfold, secret_env, platform, tmp_path):
    """And the command lines of what it is given to: a stand-in that keeps all it gets."""
    for name in ("sbatch", "kubectl"):
        stand_in = tmp_path / name
        stand_in.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/got\ncat >> {tmp_path}/got\n')
        stand_in.chmod(0o755)
    flags = ("launch", *PLATFORMS[platform], "--num_workers=2", f"--run_dir={tmp_path}/run")
    if platform == "kubernetes":
        flags = (*flags[:-1], "--run_dir=/r/run")
    path = f"{tmp_path}:{os.environ['PATH']}"
    (tmp_path / "t.py").touch()
    with CommandLines() as lines:
        shown = tenfold(*flags, "--dry_run", "--", "python", "t.py", cwd=tmp_path, PATH=path)
        done = tenfold(*flags, "--", "python", "t.py", cwd=tmp_path, PATH=path)
    assert (shown.status, done.status) == (0, 0), shown.err + done.err
    assert "HF_TOKEN" in shown.out
    assert "HF_TOKEN" in (tmp_path / "got").read_text()
    assert not words_in(shown.out + shown.err + done.out + done.err)
    (tmp_path / "key.json").unlink()
    assert not files_with_words(tmp_path)
    assert not lines.found


@pytest.mark.parametrize(
    "words",
    [
        ["--shards=https://me:pip-6f10be@store.example/shards"],
        ["--", "python", "-c", "pass", "--db=https://me:pip-6f10be@db.example"],
    ],
)
@pytest.mark.parametrize("platform", ["local", "kubernetes"])
def test_password_in_url_is_refused(tenfold, words, platform):
    flags = PLATFORMS.get(platform, ())
    done = tenfold("launch", *flags, "--run_dir=/r/run", *words)
    assert (done.status, done.out) == (2, "")
    assert "has a password in it" in done.err
    assert "pip-6f10be" not in done.err
    assert done.err.count("\n") == 1


def test_unset_passed_variable_is_refused(tenfold):
    done = tenfold("launch", "--pass_env=TENFOLD_NO_SUCH", "--", "true")
    assert done.status == 2
    assert "--pass_env=TENFOLD_NO_SUCH: this variable is not set" in done.err
