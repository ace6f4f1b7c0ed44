"""tenfold.plan, write and launch from Python, and in a real Jupyter kernel."""

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import psutil
import pytest

import tenfold
from tenfold.data.errors import JobError, UserError
from tenfold.launcher.python_api import _command_words, _defined

SLEEPER = "import time; print('asleep', flush=True); time.sleep(300)"


@pytest.mark.parametrize("module", ["tenfold", "tenfold.launcher"])
def test_published_names_import_on_use(module: str) -> None:
    package = importlib.import_module(module)
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_importing_tenfold_imports_no_launcher() -> None:
    code = "import sys, tenfold; print(*[name for name in sys.modules if 'tenfold.' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_plan_displays_as_text_and_html() -> None:
    plan = tenfold.plan(dataset_size="10GB", num_workers=4, worker_counts=[1, 2, 4, 8])
    assert (plan.layout.num_shards, plan.layout.num_lanes) == (48, 24)
    assert "48 of 208 MB" in repr(plan)
    assert "<td" in plan._repr_html_()
    assert "48 of 208 MB" in plan._repr_html_()


def test_plot_shows_the_limits_of_the_plan(tmp_path: Path) -> None:
    plan = tenfold.plan(dataset_size="1GB", min_shard_size="20MB", max_shard_size="30MB")
    plan.plot(str(tmp_path / "plan.svg"))
    assert ">20 MB<" in (tmp_path / "plan.svg").read_text(encoding="utf-8")


def test_misspelt_keyword_gets_a_hint() -> None:
    with pytest.raises(UserError, match="did you mean --num_workers"):
        tenfold.plan(dataset_size="1GB", num_worker=3)
    with pytest.raises(UserError, match="is not a number with a unit"):
        tenfold.plan(dataset_size="much")
    with pytest.raises(AttributeError):
        tenfold.plane  # noqa: B018


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"resume": False, "overwrite": True}, ["--noresume", "--overwrite"]),
        ({"worker_counts": (1, 2)}, ["--worker_counts=1,2"]),
        ({"transform": ["resize:8x8", "a:b"]}, ["--transform=resize:8x8", "--transform=a:b"]),
        ({"split": "train", "processes": None}, ["--split=train"]),
    ],
)
def test_keywords_become_flags(flags: dict[str, Any], words: list[str]) -> None:
    from tenfold.launcher.cli.commands import write

    assert _command_words(_defined(write), flags) == words


def test_write_takes_an_iterable(tmp_path: Path) -> None:
    records = ({"x": [float(n)], "label": n % 2} for n in range(100))
    written = tenfold.write(records, str(tmp_path / "shards"), num_workers=2, processes=1)
    assert written.manifest is not None
    assert written.manifest.splits[0].num_records == 100
    assert "100 records" in repr(written)
    assert "<td" in written._repr_html_()
    assert (tmp_path / "shards" / "manifest.json").exists()


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    records = [{"x": number} for number in range(100)]
    foreseen = tenfold.write(records, str(tmp_path / "shards"), num_workers=2, dry_run=True)
    assert "2 shards would be written; nothing was changed" in repr(foreseen)
    assert foreseen.manifest is None
    assert not (tmp_path / "shards").exists()


def test_launch_returns_run_with_report(tmp_path: Path, capsys: Any) -> None:
    run = tenfold.launch("sh", "-c", "echo '<b>hi</b>'", num_workers=2, run_dir=tmp_path / "run")
    assert run.state == "succeeded"
    assert "[worker 1] <b>hi</b>" in capsys.readouterr().err
    assert repr(run).startswith("succeeded in ")
    page = unescape(re.findall(r'srcdoc="([^"]*)"', run._repr_html_())[0])
    assert page.startswith("<!doctype html>")
    assert run.report() == tmp_path / "run" / "report.html"
    assert (run.steps, run.epochs) == ([], [])


def test_failed_launch_raises_unless_check_is_false(tmp_path: Path) -> None:
    program = ("sh", "-c", "echo ValueError: no >&2; exit 3")
    with pytest.raises(JobError, match="first failure: worker"):
        tenfold.launch(*program, num_workers=1, run_dir=tmp_path / "a")
    run = tenfold.launch(*program, num_workers=1, run_dir=tmp_path / "b", check=False)
    assert run.result is not None
    assert (run.state, run.result.exit_codes) == ("failed", (3,))
    with pytest.raises(UserError, match="nothing to run"):
        tenfold.launch(num_workers=1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_trained_run_has_metrics_and_report(digit_shards: Path, tmp_path: Path) -> None:
    run = tenfold.launch(
        shards=str(digit_shards), num_workers=2, epochs=2, run_dir=tmp_path / "run"
    )
    assert run.state == "succeeded"
    assert run.result is not None
    accuracy = run.epochs[-1].metrics["val_accuracy"]
    assert run.result.final["metrics"]["val_accuracy"] == accuracy
    page = run.report().read_text(encoding="utf-8")
    assert f"<b>{accuracy:.4g}</b><span>val accuracy</span>" in page
    assert "4 receipts, all exact" in page
    for word in ("waiting for input", "lanes 0–1: 2 shards", "logs/worker-1.log", "tensorflow"):
        assert word in page, word


def living(folder: Path) -> list[psutil.Process]:
    """The processes that carry `folder` in their environment or arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
            alive = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            continue
        if alive and any(str(folder) in text for text in told) and process.pid != os.getpid():
            found.append(process)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder; the processes that name it are killed at the end."""
    yield tmp_path
    for process in living(tmp_path):
        with contextlib.suppress(psutil.NoSuchProcess):  # it was about to end
            process.kill()


@pytest.mark.timeout(240)
def test_interrupted_cell_stops_the_workers(
    folder: Path, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
    try:
        run_dir = folder / "run"
        call = f"tenfold.launch({sys.executable!r}, '-c', {SLEEPER!r}, num_workers=2, "
        # stop_on_error would have the kernel refuse what is asked soon after the interrupt.
        asked = client.execute(
            f"import tenfold\n{call}run_dir={str(run_dir)!r})", stop_on_error=False
        )
        log = run_dir / "logs" / "worker-1.log"
        until(lambda: log.exists() and "asleep" in log.read_text())
        manager.interrupt_kernel()
        replies = iter(lambda: client.get_shell_msg(timeout=60), None)
        reply = next(one for one in replies if one["parent_header"].get("msg_id") == asked)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert json.loads((run_dir / "result.json").read_text())["state"] == "cancelled"
        outputs: list[dict[str, Any]] = []
        shown = client.execute_interactive(
            f"display(tenfold.Run({str(run_dir)!r}))",
            output_hook=lambda message: outputs.append(message["content"]),
        )
        assert shown["content"]["status"] == "ok"
        assert any("text/html" in output.get("data", {}) for output in outputs)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    until(lambda: not living(run_dir))


@pytest.mark.timeout(240)
def test_no_worker_outlives_killed_kernel(folder: Path, until: Callable[..., None]) -> None:
    run_dir = folder / "run"
    code = f"import tenfold; tenfold.launch({sys.executable!r}, '-c', {SLEEPER!r}, run_dir="
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}{str(run_dir)!r}, num_workers=2)"],
        stderr=subprocess.DEVNULL,
    ) as kernel:
        log = run_dir / "logs" / "worker-1.log"
        until(lambda: log.exists() and "asleep" in log.read_text())
        assert len(living(run_dir)) > 2, "the kernel and at least its two workers"
        kernel.send_signal(signal.SIGKILL)
    until(lambda: not living(run_dir))
