"""`launch --backend=join`: members started by others, as processes under platforms' variables."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tenfold.launcher.backends.ports import pick_ports
from tenfold.launcher.cli.main import main
from tenfold.launcher.report_page.run_files import read_run
from tenfold.launcher.worker.python_argv import module_argv

pytestmark = pytest.mark.timeout(120)

# Prints what it got; worker 1 then does what the argument says.
PROGRAM = """
import json, os, signal, sys, time
index = int(os.environ["TENFOLD_WORKER_INDEX"])
got = os.environ["TF_CONFIG"], index, os.environ["TENFOLD_RESTART"]
print("got", json.dumps(got), flush=True)
how = sys.argv[1] if len(sys.argv) > 1 else ""
if how == "fail" and index == 1:
    raise ValueError("its own fault")
if how == "fail":
    time.sleep(0.5)
    raise RuntimeError("UnavailableError: Connection reset by peer")
if how == "wait":
    def save(*_):
        sys.exit(76)
    signal.signal(signal.SIGTERM, save)
    open(f"waits-{index}", "w").close()
    time.sleep(100)
"""


class Members:
    """The members of one job; each call of `start` starts one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.started: list[subprocess.Popen[str]] = []
        (folder / "program.py").write_text(PROGRAM)

    def start(
        self, environ: Mapping[str, str], *flags: str, program: tuple[str, ...] | None = ()
    ) -> None:
        argv = module_argv("tenfold", ["launch", "--backend=join", "--run_dir=run", *flags])
        process = subprocess.Popen(
            [*argv, *(("--", "python3", "program.py", *program) if program is not None else ())],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        self.started.append(process)

    def finish(self) -> list[tuple[int, str, str]]:
        """Return exit status, standard output and standard error of all members."""
        outputs = [process.communicate(timeout=280) for process in self.started]
        return [
            (process.returncode, *output)
            for process, output in zip(self.started, outputs, strict=True)
        ]

    def got(self, index: int) -> Any:
        """Return what the program of worker `index` has printed to its log."""
        log = (self.run_dir / "logs" / f"worker-{index}.log").read_text()
        return json.loads(next(line for line in log.splitlines() if line.startswith("got"))[4:])

    @property
    def result(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.run_dir / "result.json").read_text())
        return document


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    members = Members(tmp_path)
    yield members
    for process in members.started:
        process.kill()
        process.communicate()


def mpi(index: int, number: int = 2) -> dict[str, str]:
    return {"OMPI_COMM_WORLD_RANK": str(index), "OMPI_COMM_WORLD_SIZE": str(number)}


def slurm(index: int) -> dict[str, str]:
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(index)}
    return {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1", **step}


def indexed_pod(index: int) -> dict[str, str]:
    return {"JOB_COMPLETION_INDEX": str(index)}


def tf_config(index: int, ports: tuple[int, ...]) -> dict[str, str]:
    cluster = {"chief": [f"localhost:{ports[0]}"], "worker": [f"localhost:{ports[1]}"]}
    task = {"type": ("chief", "worker")[index], "index": 0}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def vertex(index: int, ports: tuple[int, ...]) -> dict[str, str]:
    pools = ("workerpool0", "workerpool1")
    cluster = {pool: [f"localhost:{port}"] for pool, port in zip(pools, ports, strict=True)}
    task = {"type": pools[index], "index": 0, "trial": ""}
    return {"CLUSTER_SPEC": json.dumps({"cluster": cluster, "task": task, "job": "{}"})}


def sagemaker(index: int) -> dict[str, str]:
    hosts = ["algo-1", "algo-2"]
    return {"SM_HOSTS": json.dumps(hosts), "SM_CURRENT_HOST": hosts[index]}


PLATFORMS: dict[str, Callable[..., dict[str, str]]] = {
    "mpirun": mpi, "slurm": slurm, "indexed_pod": indexed_pod,
    "tf_config": tf_config, "vertex": vertex, "sagemaker": sagemaker,
}  # fmt: skip


@pytest.mark.parametrize("platform", PLATFORMS)
def test_members_make_one_cluster_on_every_platform(platform: str, members: Members) -> None:
    fixed = pick_ports("127.0.0.1", 2)
    known = {
        "tf_config": [f"localhost:{port}" for port in fixed],
        "vertex": [f"localhost:{port}" for port in fixed],
        "sagemaker": ["algo-1:2222", "algo-2:2222"],
    }
    more = (fixed,) if platform in ("tf_config", "vertex") else ()
    for index in (1, 0):
        members.start(PLATFORMS[platform](index, *more), "--num_workers=2")
    ended = members.finish()
    assert [status for status, _, _ in ended] == [0, 0], ended
    addresses = []
    for index in range(2):
        config, own, restart = members.got(index)
        config = json.loads(config)
        assert config["task"] == {"type": "worker", "index": index}
        assert (own, restart) == (index, "1" if platform == "slurm" else "0")
        addresses.append(config["cluster"]["worker"])
    assert addresses[0] == addresses[1]
    assert len(set(addresses[0])) == 2
    assert known.get(platform) in (None, addresses[0])
    assert members.result["state"] == "succeeded"
    assert members.result["exit_codes"] == [0, 0]
    started = {line.worker for line in read_run(members.run_dir).events if line.phase == ""}
    assert {0, 1} <= started
    assert ended[1][1].startswith("succeeded in")  # the chief, started second
    assert ended[0][1] == ""


def test_first_failure_is_told_from_its_consequence(members: Members) -> None:
    for index in range(2):
        members.start(mpi(index), program=("fail",))
    chief, other = members.finish()
    assert (chief[0], other[0]) == (75, 1)
    result = members.result
    assert result["state"] == "failed"
    assert result["first_failure"]["worker"] == 1
    assert result["first_failure"]["error"] == "ValueError: its own fault"
    assert [failure["worker"] for failure in result["consequences"]] == [0]
    assert "first failure: worker 1" in chief[1]
    assert "[worker 1] ValueError: its own fault" in other[2]


def test_stopped_members_let_workers_save_and_can_start_again(members: Members) -> None:
    for index in range(2):
        members.start(mpi(index), program=("wait",))
    end = time.monotonic() + 60
    while not all((members.folder / f"waits-{index}").exists() for index in range(2)):
        assert time.monotonic() < end
        time.sleep(0.05)
    for process in members.started:
        process.send_signal(signal.SIGTERM)
    assert [status for status, _, _ in members.finish()] == [76, 76]
    assert members.result["state"] == "cancelled"
    # The files of the first start are there; the second one must not take them for its own.
    members.started.clear()
    for index in (1, 0):
        members.start(mpi(index))
    assert [status for status, _, _ in members.finish()] == [0, 0]
    assert members.result["state"] == "succeeded"


def test_missing_member_is_named(members: Members) -> None:
    for index in (0, 2):
        members.start(mpi(index, 3), "--rendezvous_timeout=6")
    chief, other = members.finish()
    assert (chief[0], other[0]) == (1, 1)
    assert "worker 1 did not come within 6.0 s" in chief[2]
    assert "worker 1 did not come within 6.0 s" in other[2]
    assert not (members.run_dir / "result.json").exists()


def test_members_of_different_programs_are_refused(members: Members) -> None:
    members.start(mpi(0))
    members.start(mpi(1), program=("fail",))
    for status, _, err in members.finish():
        assert status == 1
        assert "worker 1 on" in err
        assert "another program or configuration" in err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_trainers_that_mpirun_starts_read_every_record_once(
    members: Members, digit_shards: Path, read_metrics: Callable[[Path], list[dict[str, Any]]]
) -> None:
    for index in range(2):
        members.start(mpi(index), f"--shards={digit_shards}", "--epochs=2", program=None)
    for status, _, err in members.finish():
        assert status == 0, err
    assert members.result["final"]["metrics"]["val_accuracy"] > 0.8
    epochs = [line for line in read_metrics(members.run_dir) if line["kind"] == "epoch"]
    assert [line["receipt"]["exact"] for line in epochs] == [True, True]
    assert (members.run_dir / "model.keras").exists()


CLUSTER = '{"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}'


@pytest.mark.parametrize(
    ("environ", "flags", "message"),
    [
        ({}, [], "nothing here says which worker this is"),
        (
            mpi(1),
            ["--num_workers=3"],
            "--num_workers=3, but this process is worker 1 of 2 by OMPI",
        ),
        (mpi(1), ["--max_restarts=1"], "--max_restarts is not for --backend=join"),
        (mpi(1), ["--inject=kill:worker=0,step=1"], "--inject is not for --backend=join"),
        (mpi(1), ["--gpus_per_worker=1"], "--gpus_per_worker is not for --backend=join"),
        (mpi(1), ["--network_interface=eth1"], "its own --host_address"),
        (mpi(1), ["--on_bad_record=skip"], "find them with 'tenfold verify'"),
        (mpi(1), [], "--backend=join needs --run_dir"),
        ({"TF_CONFIG": CLUSTER}, ["--run_dir=run"], "TF_CONFIG: 'b' has no port"),
        ({"TF_CONFIG": CLUSTER}, ["--run_dir=run", "--port=4000"], "TF_CONFIG gives the ports"),
        ({"JOB_COMPLETION_INDEX": "1"}, [], "nothing gives the number of workers"),
        (mpi(0), ["--shards=gs://x", "--source=y", "--output=z"], "--source is not for --backend"),
    ],
)
def test_unusable_surroundings_are_refused(
    environ: dict[str, str],
    flags: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["launch", "--backend=join", *flags, "--", "true"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_dry_run_shows_the_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in sagemaker(1).items():
        monkeypatch.setenv(name, value)
    flags = ["--run_dir=run", "--port=4000", "--dry_run"]
    assert main(["launch", "--backend=join", *flags, "--", "true"]) == 0
    out = capsys.readouterr().out
    assert "place          worker 1 of 2 by SM_HOSTS" in out
    assert '"worker": ["algo-1:4000", "algo-2:4000"]' in out
    assert not Path("run").exists()


def test_members_may_come_to_the_directory_of_a_finished_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A member may come when the others have ended a short job."""
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "result.json").write_text('{"state": "succeeded"}')
    for name, value in sagemaker(1).items():
        monkeypatch.setenv(name, value)
    flags = [f"--run_dir={tmp_path}", "--dry_run", "--", "true"]
    assert main(["launch", "--backend=join", *flags]) == 0
    assert main(["launch", "--backend=local", *flags]) == 2
    assert "holds a job that succeeded" in capsys.readouterr().err
