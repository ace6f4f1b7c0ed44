"""Run directories, ports, environments, and the result in words."""

import fcntl
import json
import socket
from types import SimpleNamespace

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.backends.ports import is_free, pick_ports, port_holder
from tenfold.launcher.cli.train_flags import parse_interval
from tenfold.launcher.display.summary import result_text
from tenfold.launcher.job import lease
from tenfold.launcher.job import run_dir as rundir
from tenfold.launcher.job.job_result import Failure, JobResult, Recovery
from tenfold.launcher.job.job_spec import (
    ClusterSpec,
    JobSpec,
    job_from_json,
    job_to_json,
    worker_env,
)
from tenfold.launcher.job.run_dir import RunDir, default_run_dir
from tenfold.launcher.worker.environment import no_proxy_for, worker_defaults
from tenfold.launcher.worker.python_argv import module_argv

SPEC = JobSpec(("python", "x.py"), 2, "/runs/a", cwd="/home", env={"A": "1"}, train={"epochs": 2})
CLUSTER = ClusterSpec(("10.0.0.1:4000", "10.0.0.2:4000"))


def test_job_json_survives_the_way():
    assert job_from_json(job_to_json(SPEC, CLUSTER)) == (SPEC, CLUSTER)
    for text in ("", "[]", "{}", '{"workers": ["a:1"], "argv": [], "what": 1}'):
        with pytest.raises(UserError, match="not a job file"):
            job_from_json(text)


def test_a_workers_environment():
    env = worker_env(SPEC, CLUSTER, 1, restart=3)
    assert json.loads(env["TF_CONFIG"]) == {
        "cluster": {"worker": ["10.0.0.1:4000", "10.0.0.2:4000"]},
        "task": {"type": "worker", "index": 1},
    }
    assert {name: env[name] for name in env if name != "TF_CONFIG"} == {
        "A": "1",
        "TENFOLD_WORKER_INDEX": "1",
        "TENFOLD_NUM_WORKERS": "2",
        "TENFOLD_RUN_DIR": "/runs/a",
        "TENFOLD_RESTART": "3",
    }
    with pytest.raises(UserError, match="one address"):
        ClusterSpec(("a:1", "a:1"))


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(8, 2, "4"), (8, 3, "2"), (2, 4, "1"), (1, 1, "1")]
)
def test_workers_share_the_cores(cores, workers, threads):
    env = worker_defaults({}, num_workers=workers, cores=cores)
    assert env["TF_NUM_INTRAOP_THREADS"] == threads
    assert env["TF_NUM_INTEROP_THREADS"] == str(max(2, int(threads)))


def test_what_the_user_has_set_stays():
    mine = {"TF_NUM_INTRAOP_THREADS": "7", "TF_CPP_MIN_LOG_LEVEL": "0"}
    assert not set(worker_defaults(mine, num_workers=2, cores=2)) & set(mine)


def test_proxies_are_kept_out_of_the_workers_traffic():
    assert no_proxy_for({}, CLUSTER.workers) == {}
    behind = {"HTTPS_PROXY": "http://proxy:8080", "no_proxy": "example.org"}
    assert no_proxy_for(behind, CLUSTER.workers) == {
        "no_grpc_proxy": "example.org,10.0.0.1,10.0.0.2"
    }


def test_ports_that_are_picked_are_free_and_different():
    ports = pick_ports("127.0.0.1", 20)
    assert len(set(ports)) == 20
    assert all(is_free("127.0.0.1", port) for port in ports)
    assert not set(pick_ports("127.0.0.1", 5, avoid=ports)) & set(ports)
    with socket.create_server(("127.0.0.1", ports[0])):
        assert not is_free("127.0.0.1", ports[0])
        assert "pid" in port_holder(ports[0])


def test_a_run_dir_is_locked_while_it_is_held(tmp_path):
    held = RunDir(tmp_path / "a")
    with pytest.raises(UserError, match="in use"):
        RunDir(tmp_path / "a")
    held.close()
    RunDir(tmp_path / "a").close()


def test_a_look_at_whether_a_job_runs_stops_no_launch(tmp_path, monkeypatch):
    with (tmp_path / "lock").open("a") as look:
        fcntl.flock(look, fcntl.LOCK_SH)  # as `is_locked` does
        monkeypatch.setattr(rundir.time, "sleep", lambda _: look.close())
        held = RunDir(tmp_path)
    assert rundir.is_locked(tmp_path)
    held.close()


def test_a_lease_is_looked_at_as_often_as_said_before_it_is_void(monkeypatch):
    """However long that takes: what passes while both stand still proves nothing."""
    paused: list[float] = []
    looks: list[str] = []

    def read(name):
        looks.append(name)
        return b"{}"

    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=paused.append))
    waiting = object.__new__(lease.Lease)
    waiting._remote = SimpleNamespace(path="gs://b/run", read=read)
    waiting._wait_until_void(b"{}")
    assert (sum(paused), len(looks)) == (lease.VOID_AFTER_S, len(paused))
    with pytest.raises(UserError, match="in use"):
        waiting._wait_until_void(b"{another}")


def test_a_run_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--run_dir"):
        RunDir(tmp_path / "file" / "run")


def test_default_run_dirs_differ(tmp_path):
    first = default_run_dir("my model/é", parent=tmp_path)
    first.mkdir()
    second = default_run_dir("my model/é", parent=tmp_path)
    assert first != second
    assert first.parent == second.parent == tmp_path
    assert " " not in first.name


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, (0, 0.0)),
        ("500", (500, 0.0)),
        ("500steps", (500, 0.0)),
        ("90s", (0, 90.0)),
        ("1.5min", (0, 90.0)),
        ("2h", (0, 7200.0)),
    ],
)
def test_checkpoint_intervals(text, value):
    assert parse_interval(text) == value


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "5 parsecs", "s", "0s"])
def test_checkpoint_intervals_that_make_no_sense(text):
    with pytest.raises(UserError, match="checkpoint_every"):
        parse_interval(text)


def test_modules_run_without_the_current_folder_on_their_path(tmp_path):
    import subprocess

    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    argv = module_argv("tenfold", ["--version"])
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_result_in_words(tmp_path):
    failure = Failure(1, 0.0, "training", 40, -9, "killed by SIGKILL")
    result = JobResult(
        state="succeeded",
        exit_codes=(0, 0),
        seconds=12.34,
        final={"epochs": 2, "metrics": {"val_accuracy": 0.98888}, "model": "/x/model.keras"},
        recoveries=(Recovery(failure, False, 2, 3.21),),
    )
    assert result_text(result, tmp_path).splitlines() == [
        "succeeded in 12 s",
        "  epochs: 2",
        "  val accuracy: 0.9889",
        "restart 1: worker 1 at step 40: killed by SIGKILL; next step after 3.2 s",
        f"run directory: {tmp_path}",
        f"logs: {tmp_path / 'logs'}",
    ]
