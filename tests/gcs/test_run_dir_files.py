"""Run directories on gs://, with user programs that do without TensorFlow."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tenfold as tenfold_module
from tenfold.data.errors import UserError
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job import lease
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec, job_to_json
from tenfold.launcher.job.lease import Lease
from tenfold.launcher.job.remote_run_dir import is_held
from tenfold.launcher.job.run_dir import LEASE_FILE, check_usable
from tenfold.launcher.worker.python_argv import module_argv

pytestmark = pytest.mark.timeout(240)

PROGRAM = """
import os, sys, time
import tenfold
worker = tenfold.worker()
assert worker.run_dir == os.environ["TENFOLD_RUN_DIR"] == sys.argv[1], worker.run_dir
print("hello of", worker.index, flush=True)
while len(sys.argv) > 2 and not os.path.exists(sys.argv[2]):
    time.sleep(0.02)
print("bye of", worker.index, flush=True)
"""


@pytest.fixture
def launch(bucket, start_tenfold, tmp_path, monkeypatch):
    """Return a function that starts `tenfold launch` of PROGRAM with a run directory on gs://."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def start(where, *arguments):
        run = [sys.executable, program, where, *arguments]
        return start_tenfold("launch", f"--run_dir={where}", "--num_workers=2", "--", *run)

    return start


def test_run_dir_holds_exactly_the_files_of_a_job(bucket, launch, tenfold, tmp_path):
    where = f"{bucket.url}/some/run"
    process = launch(where)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"run directory: {where}\n" in out
    assert bucket.names() == [
        f"some/run/{name}"
        for name in (
            "environment.json",
            "history.jsonl",
            "job.json",
            "logs/worker-0.log",
            "logs/worker-1.log",
            "metrics.prom",
            "result.json",
        )
    ]
    assert json.loads(bucket.read("some/run/result.json"))["state"] == "succeeded"
    for worker in (0, 1):
        log = bucket.read(f"some/run/logs/worker-{worker}.log").decode()
        assert log.splitlines()[1:] == [f"hello of {worker}", f"bye of {worker}"]
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["lock"]

    reported = tenfold("report", where + "/", cwd=tmp_path)
    assert (reported.status, reported.out) == (0, "run-report.html\n"), reported.err
    page = (tmp_path / "run-report.html").read_text()
    assert "<title>run: succeeded</title>" in page
    assert where in page
    run = tenfold_module.Run(where)
    assert (run.state, run.epochs) == ("succeeded", [])
    assert run.result is not None
    assert run.result.exit_codes == (0, 0)
    assert f"logs: {where}/logs" in repr(run)
    again = launch(where)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 2
    assert err == (
        f"tenfold: run_dir '{where}' holds a job that succeeded: give a new --run_dir\n"
    )


def test_killed_launcher_leaves_no_result(bucket, launch, tenfold, tmp_path, until):
    where, go_on = f"{bucket.url}/run", tmp_path / "go-on"
    process = launch(where, go_on)
    # Logs are uploaded while the job runs.
    until(lambda: b"hello" in (bucket.read("run/logs/worker-1.log") or b""))
    other = launch(where, go_on)
    _, err = other.communicate(timeout=60)
    assert other.returncode == 2
    assert "is in use by another launch" in err
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert "run/result.json" not in bucket.names()
    # On other machines the job counts as running until its lease expires.
    assert is_held(where)
    held = json.loads(bucket.read(f"run/{LEASE_FILE}"))
    old = {**held, "time": held["time"] - lease.VOID_AFTER_S}
    bucket.write(f"run/{LEASE_FILE}", json.dumps(old).encode())
    assert tenfold("report", where, cwd=tmp_path).status == 0
    page = (tmp_path / "run-report.html").read_text()
    assert "<title>run: ended without a result</title>" in page

    # On its own machine, the launcher is known to be dead at once.
    bucket.write(f"run/{LEASE_FILE}", json.dumps({**held, "time": time.time()}).encode())
    go_on.touch()
    again = launch(where, go_on)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    log = bucket.read("run/logs/worker-1.log").decode()
    assert (log.count("hello of 1"), log.count("bye of 1")) == (2, 1)
    assert b'"launch"' in bucket.read("run/history.jsonl").splitlines()[0]


def test_missing_bucket_is_reported_at_once(launch, tenfold, tmp_path):
    process = launch("gs://no-such-bucket/run")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("tenfold: there is no bucket 'no-such-bucket': ")
    assert err.count("\n") == 1
    reported = tenfold("report", "gs://no-such-bucket/run")
    assert (reported.status, reported.err) == (2, err)


def test_foreign_folder_is_refused_as_run_dir(bucket, launch, tenfold):
    bucket.write("shards/manifest.json", b"{}")
    process = launch(f"{bucket.url}/shards")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "holds other files" in err
    reported = tenfold("report", f"{bucket.url}/shards")
    assert reported.status == 2
    assert "is not a run directory, it has no job.json" in reported.err
    assert bucket.names() == ["shards/manifest.json"]


def test_unreachable_storage_keeps_local_files(own_server, launch, tmp_path, until, monkeypatch):
    bucket = own_server.make_bucket()
    monkeypatch.setenv("TENFOLD_STORAGE_RETRY_S", "1")
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    where, go_on = f"{bucket.url}/run", tmp_path / "go-on"
    process = launch(where, go_on)
    until(lambda: b"hello" in (bucket.read("run/logs/worker-1.log") or b""))
    own_server.process.kill()
    own_server.process.wait()
    go_on.touch()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    last = err.splitlines()[-1]
    assert last.startswith("tenfold: the job has succeeded, but its result could not be uploaded")
    local = Path(last.rpartition(" are in ")[2])
    assert json.loads((local / "result.json").read_text())["state"] == "succeeded"
    assert "bye of 1" in (local / "logs/worker-1.log").read_text()


@pytest.fixture
def quick_leases(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    monkeypatch.setattr(lease, "VOID_AFTER_S", 2.0)


@pytest.mark.usefixtures("quick_leases")
def test_lease_belongs_to_one_launch(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "VOID_AFTER_S", 60.0)  # longer than the test: the holder is alive
    folder = open_folder(f"{bucket.url}/run")
    held = Lease(folder, tmp_path / "here", note=print)
    check_usable(folder.path)  # a lease alone, of a launch that died early, is no obstacle
    notes: list[str] = []
    with pytest.raises(UserError, match=f"in use by another launch .process {os.getpid()} on"):
        Lease(folder, tmp_path / "elsewhere", note=notes.append)
    assert "waiting up to 60 s for it to renew its lease" in notes[0]
    held.close()
    assert bucket.names() == []


@pytest.mark.usefixtures("quick_leases")
def test_lease_without_renewal_expires(bucket, tmp_path):
    """However wrong the clock of its holder was."""
    folder = open_folder(f"{bucket.url}/run")
    for ahead in (-1e6, 1e6):
        dead = {"machine": "x", "pid": 1, "time": time.time() + ahead}
        bucket.write(f"run/{LEASE_FILE}", json.dumps(dead).encode())
        notes: list[str] = []
        Lease(folder, tmp_path / "here", note=notes.append).close()
        assert "on x" in notes[0]
    bucket.write(f"run/{LEASE_FILE}", b"damaged")
    Lease(folder, tmp_path / "here", note=notes.append).close()


@pytest.mark.usefixtures("quick_leases")
def test_one_of_many_launches_gets_the_lease(bucket, tmp_path):
    won, lost = [], []

    def take(number):
        folder = open_folder(f"{bucket.url}/run")
        try:
            won.append(Lease(folder, tmp_path / str(number), note=print))
        except UserError:
            lost.append(number)

    dead = {"machine": "x", "pid": 1, "time": time.time()}
    bucket.write(f"run/{LEASE_FILE}", json.dumps(dead).encode())
    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].close()


def test_submitted_jobs_get_the_run_dir_url(bucket, tenfold, tmp_path):
    where = f"{bucket.url}/runs/first"
    flags = ["--num_workers=1", "--dry_run", f"--run_dir={where}"]
    slurm = tenfold("launch", "--backend=slurm", *flags, "--", "true", cwd=tmp_path)
    assert slurm.status == 0, slurm.err
    assert "#SBATCH --job-name=first\n" in slurm.out
    assert f"#SBATCH --output={tmp_path}/first.slurm-%j.log\n" in slurm.out
    assert f"--run_dir={where}" in slurm.out
    shards = f"--shards={bucket.url}/shards"
    pods = tenfold("launch", "--backend=kubernetes", "--image=i", *flags, shards)
    assert pods.status == 0, pods.err
    assert "name: first\n" in pods.out
    assert f'"run_dir": "{where}"' in pods.out.replace('\\"', '"')


def test_pods_upload_their_files(bucket, tmp_path):
    where = f"{bucket.url}/run"
    say = "import os; print(os.environ['TENFOLD_RUN_DIR'])"
    spec = JobSpec((sys.executable, "-c", say), 2, where)
    job = tmp_path / "job.json"
    job.write_text(job_to_json(spec, ClusterSpec(("127.0.0.1:2222", "127.0.0.1:2223"))))
    for index in ("1", "0"):  # the chief waits for the ends of the others, but not for long
        pod = subprocess.run(
            module_argv("tenfold.launcher.supervisor.members.pod"),
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "TENFOLD_JOB_FILE": str(job),
                "JOB_COMPLETION_INDEX": index,
                "XDG_CACHE_HOME": str(tmp_path / index),
            },
        )
        assert pod.returncode == 0, pod.stderr
        assert f"] {where}" in pod.stderr
    assert bucket.read("run/job.json") == job.read_bytes()
    assert json.loads(bucket.read("run/result.json"))["exit_codes"] == [0, 0]
    for worker in range(2):
        assert where in bucket.read(f"run/logs/worker-{worker}.log").decode()
    assert b'"started"' in bucket.read("run/members/history-1.jsonl")


def test_kill_leaves_only_whole_checkpoints(bucket):
    """Kill a process at each socket call of the single request that uploads a checkpoint."""
    program = Path(__file__).parents[1] / "models" / "training" / "checkpoints" / "killed_saves.py"
    done = subprocess.run(
        [sys.executable, program, f"{bucket.url}/run/checkpoints"],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # it may fork only with one thread
    )
    assert done.returncode == 0, done.stderr[-3000:]
    deaths = json.loads(done.stdout)
    # The server may have finished a request or not when its sender dies.
    states = ([1, 2], [0, 1, 2], [0, 1])
    found = [states.index(death["found"]) for death in deaths]
    assert (found[0], found[-1]) == (0, 2)
    assert all(death["next"] == [0, 1] for death in deaths)
    assert not any(death["besides"] for death in deaths)
