"""The command lines of `evaluate` and `predict`: refused in one line, rendered for platforms."""

from pathlib import Path

import pytest

from tenfold.launcher.cli.main import main


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=run"], "--shards is missing: give --model=RUN_DIR --shards=PATH"),
        (["--shards={shards}"], "--model is missing"),
        (["--split=tset"], "there is no split 'tset'"),
        (["--model=nowhere"], "nowhere is neither a .keras file nor the run directory"),
        (["--keep=name"], "--keep=name: these shards have image, label"),
        (["--keep=image"], "--keep=image: it is an image"),
        (["--keep=label:index"], "have a column 'index' already"),
        (["--keep=label,label"], "'label' is empty or stands twice"),
        (["train.py"], "unexpected argument 'train.py'"),
    ],
)
def test_wrong_command_line_is_refused_in_one_line(
    flags: list[str],
    message: str,
    digit_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "job.json").write_text("{}")
    whole = ["--model=run", f"--shards={digit_shards}", "--output=out", "--split=train"]
    given = [flag.format(shards=digit_shards) for flag in flags]
    if len(given) == 1 and given[0] in ("--model=run", f"--shards={digit_shards}"):
        whole = ["--output=out"]
    assert main(["predict", *whole, *given]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_follow_needs_a_run_directory(
    digit_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.keras").write_bytes(b"")
    model = f"--model={tmp_path}/model.keras"
    assert main(["evaluate", "--follow", model, f"--shards={digit_shards}"]) == 2
    assert "give its run directory as --model" in capsys.readouterr().err


def test_platform_gets_a_program_with_whole_paths(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--backend=kubernetes", "--image=me/x:1", "--run_dir=gs://b/run", "--dry_run"]
    data = ["--model=gs://b/first", "--shards=gs://b/shards"]
    assert main(["evaluate", *data, *flags, "--num_workers=2"]) == 0
    out = capsys.readouterr().out
    assert "tenfold.launcher.worker.inference" in out
    assert "gs://b/first" in out
    assert main(["evaluate", "--model=first", *data[1:], *flags]) == 2
    assert "give gs://… or an absolute path on the workers" in capsys.readouterr().err


def test_workers_on_other_hosts_run_their_own_python() -> None:
    from tenfold.launcher.job.job_spec import JobSpec
    from tenfold.launcher.worker.python_argv import module_argv, remote_module_argv

    module = "tenfold.launcher.worker.inference"
    for argv in (module_argv(module, ["{}"]), remote_module_argv(module, ["{}"], python="p")):
        assert JobSpec(argv, 1, "run").argv_on("/there/python")[0] == "/there/python"
    own = ("python", "-m", "train", "tenfold.x")
    assert JobSpec(own, 1, "run").argv_on("/there/python") == own
