"""Slurm: batch scripts, submitted to a real controller with two nodes, started by the test."""

import json
import os
import re
import shlex
import subprocess
import time

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Submission
from tenfold.launcher.backends.host_list import HostEntry
from tenfold.launcher.backends.slurm import (
    Allocation,
    SlurmBackend,
    SlurmSubmitter,
    node_addresses,
    parse_counts,
    usable_nodes,
)
from tenfold.launcher.job.job_spec import JobSpec
from tenfold.launcher.worker.python_argv import module_argv

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def slurm(slurm_conf, launch, end_slurm_jobs):
    """Run Slurm's own commands; `launch` is a launch from outside of any allocation."""
    environment = {**os.environ, "SLURM_CONF": str(slurm_conf)}
    launch.prefix = ("env", f"SLURM_CONF={slurm_conf}")

    def run(*argv: str) -> str:
        return subprocess.run(
            argv, capture_output=True, text=True, check=True, env=environment
        ).stdout

    yield run
    end_slurm_jobs(slurm_conf)


def submitted(launch):
    assert launch.status == 0, launch.err
    found = re.search(r"submitted job (\d+)", launch.out)
    assert found, launch.out
    return found[1]


def wait_for_result(launch, state, timeout_s=100):
    end = time.monotonic() + timeout_s
    while not (launch.run_dir / "result.json").exists() or launch.result["state"] != state:
        logs = [log.read_text() for log in launch.folder.glob("run.slurm-*.log")]
        assert time.monotonic() < end, logs
        time.sleep(0.05)


def test_batch_job_runs_the_same_launch(launch, slurm):
    text = """
    import socket
    mark(f"node-{index}", os.environ["SLURMD_NODENAME"] + " " + repr(sys.argv[1:]))
    """
    program = ("python3", str(launch.program(text)), "it's", "$HOME")
    flags = ("--backend=slurm", "--num_workers=2", "--time_limit=5", "--partition=all")
    launch.run(*flags, "--sbatch=--comment='two words'", program=program)
    number = submitted(launch)
    wait_for_result(launch, "succeeded")
    told = {(launch.run_dir / f"node-{index}").read_text() for index in range(2)}
    assert told == {"sn0 [\"it's\", '$HOME']", "sn1 [\"it's\", '$HOME']"}
    shown = slurm("scontrol", "show", "job", number)
    assert "TimeLimit=00:05:00" in shown
    assert "Comment=two words" in shown
    assert "Requeue=1" in shown


def test_job_saves_and_requeues_at_time_limit(launch, slurm):
    """USR1 is what Slurm sends before the limit; here the test sends it."""
    text = """
    def save(*_):
        mark(f"saved-{index}")
        sys.exit(76)
    signal.signal(signal.SIGTERM, save)
    if os.path.exists(os.path.join(run_dir, "saved-0")):
        mark(f"went-on-{index}")
        sys.exit(0)
    mark(f"up-{index}")
    time.sleep(100)
    """
    launch.run("--backend=slurm", "--num_workers=2", text=text)
    number = submitted(launch)
    end = time.monotonic() + 60
    while not all((launch.run_dir / f"up-{index}").exists() for index in range(2)):
        assert time.monotonic() < end, slurm("squeue")
        time.sleep(0.05)
    slurm("scancel", "--batch", "--signal=USR1", number)
    end = time.monotonic() + 60
    while "JobState=PENDING" not in (shown := slurm("scontrol", "show", "job", number)):
        assert time.monotonic() < end, shown
        time.sleep(0.1)
    assert "Restarts=1" in shown
    # Slurm delays a requeued job by two minutes.
    slurm("scontrol", "update", f"JobId={number}", "StartTime=now")
    wait_for_result(launch, "succeeded")
    marks = set(os.listdir(launch.run_dir))
    assert {"saved-0", "saved-1", "went-on-0", "went-on-1"} <= marks


SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=run
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --chdir={folder}
#SBATCH --output={folder}/run.slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --time=1-12:00:00
#SBATCH --gres=gpu:4
{python} launch --backend=slurm --num_workers=3 --sbatch=--gres=gpu:4 \
--time_limit=1-12:00:00 --run_dir={folder}/run -- true 'a b' &
"""


def test_dry_run_prints_the_batch_script(tenfold, tmp_path):
    done = tenfold(
        "launch", "--backend=slurm", "--num_workers=3", f"--run_dir={tmp_path}/run",
        "--time_limit=1-12:00:00", "--sbatch=--gres=gpu:4", "--dry_run", "--", "true", "a b",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.err
    command = next(line for line in done.out.splitlines() if " launch " in line)
    python = command[: command.index(" launch ")]
    assert python.endswith("-m tenfold")
    assert done.out.startswith(SCRIPT.format(folder=tmp_path, python=python))
    assert subprocess.run(["bash", "-n"], input=done.out, text=True).returncode == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("run-7", "run-7"),
        ("my run", "'my run'"),
        ("#1", "'#1'"),  # unquoted it would start a comment
        ("it's", """'it'"'"'s'"""),
    ],
)
def test_names_are_quoted_in_the_script(name, written):
    spec = JobSpec(("true",), 1, f"/runs/{name}", cwd=name)
    lines = SlurmSubmitter(partition=name).render(Submission(spec, ("launch",), 0)).splitlines()
    for option in ("job-name", "chdir", "partition"):
        assert f"#SBATCH --{option}={written}" in lines


def test_sbatch_unquotes_names_to_the_same_text(launch, slurm):
    name = "my run #1; it's"
    work = launch.folder / name
    work.mkdir()
    launch.prefix = ("env", f"--chdir={work}", *launch.prefix[1:])
    launch.run(
        "--backend=slurm", "--num_workers=1", f"--run_dir={name}",
        r"--sbatch=--hold '--comment=C:\a b'", program=("true",),
    )  # fmt: skip
    shown = slurm("scontrol", "show", "job", submitted(launch)).splitlines()
    assert shown[0].endswith(f"JobName={name}")
    assert f"   WorkDir={work}" in shown
    assert r"   Comment=C:\a b" in [line.rstrip() for line in shown]


@pytest.mark.parametrize("name", [r"a\b", "a\nb"])
def test_run_dir_with_backslash_is_refused(tenfold, tmp_path, name):
    flags = ("--backend=slurm", f"--run_dir={tmp_path / name}", "--dry_run")
    done = tenfold("launch", *flags, "--", "true")
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert "choose another --run_dir" in done.err


def test_repeated_flags_reach_the_batch_job(tenfold, tmp_path):
    done = tenfold(
        "launch", "--backend=slurm", "--num_workers=2", "--pass_env=HOME,PATH",
        "--inject=kill:worker=1,step=5", "--inject=stop:worker=0", "--dry_run", "--", "true",
        cwd=tmp_path,
    )  # fmt: skip
    assert " --pass_env=HOME,PATH " in done.out
    assert " --inject=kill:worker=1,step=5 --inject=stop:worker=0 " in done.out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--time_limit=soon"], "time_limit 'soon'"),
        (["--sbatch=gpu"], "'gpu' is not an option"),
        (["--sbatch='--x"], "No closing quotation"),
        (["--epochs=2"], "--epochs is for the built-in trainer"),
    ],
)
def test_wrong_options_are_refused_in_one_line(tenfold, flags, words):
    done = tenfold("launch", "--backend=slurm", *flags, "--dry_run", "--", "true")
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert done.err.count("\n") == 1


def test_error_of_sbatch_is_reported(launch, slurm):
    launch.run("--backend=slurm", "--num_workers=2", "--partition=none", text="pass")
    assert launch.status == 1
    assert launch.err.startswith("tenfold: sbatch failed:")
    assert "invalid partition" in launch.err


@pytest.mark.parametrize(
    ("text", "counts"), [("1", (1,)), ("2(x3),1", (2, 2, 2, 1)), ("1,2(x2)", (1, 2, 2))]
)
def test_slurm_number_lists_are_parsed(text, counts):
    assert parse_counts(text) == counts


def test_malformed_number_lists_are_refused():
    for text in ("", "a", "2(x)", "2(x3"):
        with pytest.raises(UserError, match="as Slurm writes it"):
            parse_counts(text)


def test_node_addresses_are_parsed():
    text = "NodeName=a Arch=x86_64 NodeAddr=10.0.0.1 Boards=1\nNodeName=b NodeAddr=b Boards=1\n"
    assert node_addresses(text) == {"a": "10.0.0.1", "b": "b"}


def test_nodes_that_are_up_are_found():
    states = {
        "a": "ALLOCATED", "b": "MIXED+DRAIN", "c": "DOWN", "d": "IDLE*",
        "e": "DOWN+NOT_RESPONDING", "f": "ALLOCATED+NOT_RESPONDING",
        "g": "IDLE+POWERED_DOWN", "h": "IDLE",
    }  # fmt: skip
    lines = [
        f"NodeName={name} Arch=x86_64 State={state} Boards=1" for name, state in states.items()
    ]
    assert usable_nodes("\n".join(lines)) == {"a", "b", "h"}


def test_elastic_job_keeps_its_allocation(tenfold, tmp_path):
    flags = ("--backend=slurm", "--num_workers=2", f"--run_dir={tmp_path}/run", "--dry_run")
    elastic = tenfold("launch", *flags, "--spare_hosts=1", "--", "true").out
    assert "#SBATCH --nodes=3\n" in elastic
    assert "#SBATCH --no-kill\n" in elastic
    assert "--spare_hosts=1" in elastic.partition("launch")[2]
    assert "--no-kill" in tenfold("launch", *flags, "--min_workers=1", "--", "true").out
    plain = tenfold("launch", *flags, "--", "true").out
    assert "#SBATCH --nodes=2\n" in plain
    assert "--no-kill" not in plain


@pytest.mark.slow
def test_job_goes_on_without_a_node_that_is_down(launch, slurm):
    text = """
    mark(f"up-{restart}-{index}", f"{count} on " + os.environ["SLURMD_NODENAME"])
    while not restart:
        say("step", "training", step=1)
        time.sleep(0.1)
    """
    flags = ("--backend=slurm", "--num_workers=2", "--min_workers=1", "--max_restarts=1")
    launch.run(*flags, "--grace=1", text=text)
    number = submitted(launch)
    end = time.monotonic() + 100
    while not (launch.run_dir / "up-0-1").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    try:
        slurm("scontrol", "update", "nodename=sn1", "state=down", "reason=test")
        wait_for_result(launch, "succeeded")
    finally:
        resume = ("scontrol", "update", "nodename=sn1", "state=resume")
        subprocess.run([*launch.prefix, *resume], check=False)  # it may be up again by itself
    assert (launch.run_dir / "up-1-0").read_text() == "1 on sn0"
    (change,) = launch.result["resizes"]
    assert (change["before"], change["num_workers"], change["reason"]) == (2, 1, "sn1 is gone")
    assert "Requeue=1 Restarts=0" in slurm("scontrol", "show", "job", number)


def test_missing_node_list_is_refused(tenfold):
    done = tenfold("launch", "--backend=slurm", "--", "true", SLURM_JOB_ID="1")
    assert done.status == 2
    assert "this is not a Slurm allocation" in done.err


def test_more_workers_than_tasks_are_refused():
    backend = SlurmBackend(Allocation((HostEntry("a", 2), HostEntry("b", 1)), {"a": 8, "b": 8}))
    hosts = backend.hosts(3)
    assert [host.name for host in hosts] == ["a", "a", "b"]
    assert "--cpus-per-task=4" in backend.command(hosts[0], ["x"], {}).argv
    with pytest.raises(UserError, match="4 workers need as many slots"):
        backend.hosts(4)


def test_steps_of_srun_join_one_job(launch, slurm):
    """The batch script is no member; srun starts one on each node."""
    program = launch.program('mark(f"config-{index}", os.environ["TF_CONFIG"])')
    command = [*module_argv("tenfold"), "launch", "--backend=join", f"--run_dir={launch.run_dir}"]
    step = shlex.join(["srun", "--nodes=2", "--ntasks=2", *command, "--", "python3", str(program)])
    settings = f"#SBATCH --nodes=2\n#SBATCH --output={launch.folder.parent}/join.log"
    alone = shlex.join([*command, "--", "true"])
    script = f"#!/bin/bash\n{settings}\n{alone} 2> {launch.folder.parent}/alone\n{step}\n"
    subprocess.run(
        [*launch.prefix, "sbatch"], input=script, text=True, check=True, capture_output=True
    )
    wait_for_result(launch, "succeeded")
    configs = [json.loads((launch.run_dir / f"config-{index}").read_text()) for index in range(2)]
    assert configs[0]["cluster"] == configs[1]["cluster"]
    assert [config["task"]["index"] for config in configs] == [0, 1]
    alone = (launch.folder.parent / "alone").read_text()
    assert "nothing here says which worker this is" in alone


def test_waiting_job_is_shown_and_cancelled(launch, slurm, slurm_conf, tenfold):
    launch.run("--backend=slurm", "--num_workers=2", "--sbatch=--hold", text="pass")
    number = submitted(launch)

    def said(command: str, status: int = 0) -> str:
        done = tenfold(command, launch.run_dir, SLURM_CONF=str(slurm_conf))
        assert done.status == status, done
        return done.out + done.err

    assert f"slurm job {number}: pending (JobHeldUser)" in said("status")
    assert said("cancel") == f"cancelled Slurm job {number}\n"
    assert "not in the queue any more" in said("status")
    assert "not in the queue any more" in said("cancel", status=2)
