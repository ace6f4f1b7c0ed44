"""The Slurm back end, inside and outside of an allocation.

Inside, each worker is a job step on its node. Outside, the launch is submitted as a batch script
that runs the same launch inside an allocation. The nodes share this machine's file system.
Formats: slurm.schedmd.com/srun.html, sbatch.html (SLURM_TASKS_PER_NODE, --signal).
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import is_url
from tenfold.launcher.backends.base import (
    Backend,
    Host,
    Option,
    Submission,
    Submitted,
    Submitter,
)
from tenfold.launcher.backends.host_list import HostEntry, fill_slots
from tenfold.launcher.backends.ports import far_ports
from tenfold.launcher.job.job_spec import HostCommand, JobSpec, SubmittedJob
from tenfold.launcher.worker.python_argv import module_argv

OPTIONS: Final = (
    Option("time_limit", "how long the job may run: 90 (minutes), 2:00:00, 1-12:00:00"),
    Option("partition", "partition to run in"),
    Option(
        "sbatch", "further options of sbatch, quoted as in a shell: '--account=ml --gres=gpu:4'"
    ),
)
# Workers are asked to save a checkpoint and stop this long before the time limit.
NOTICE_S: Final = 120
# A controller that is busy may take long.
ASK_TIMEOUT_S: Final = 60
# States of nodes without the user's processes (man 1 sinfo, "NODE STATE CODES").
_AWAY: Final = frozenset(
    ("DOWN", "FAIL", "NO_RESPOND", "NOT_RESPONDING", "POWERED_DOWN", "POWERING_DOWN", "UNKNOWN")
)
_TIME: Final = re.compile(r"(\d+-)?\d+(:\d+){0,2}")
_COUNT: Final = re.compile(r"(\d+)(?:\(x(\d+)\))?")


@dataclass(frozen=True)
class Allocation:
    """The nodes that this process may use, with slots for workers, and the cores of each node."""

    nodes: tuple[HostEntry, ...]
    cpus: Mapping[str, int]


def parse_counts(text: str) -> tuple[int, ...]:
    """Return the numbers of a list as Slurm writes it; ``2(x3),1`` is 2, 2, 2, 1.

    Raises:
      UserError: the text is not such a list.
    """
    counts: list[int] = []
    for part in text.split(","):
        match = _COUNT.fullmatch(part)
        if match is None:
            raise UserError(f"'{text}' is not a list of numbers as Slurm writes it")
        counts += [int(match[1])] * int(match[2] or 1)
    return tuple(counts)


def read_allocation(environ: Mapping[str, str]) -> Allocation:
    """Return the allocation that the environment variables of a job describe.

    Raises:
      UserError: there is no allocation, or Slurm's commands fail.
    """
    nodes = environ.get("SLURM_JOB_NODELIST", "")
    if not nodes:
        raise UserError("this is not a Slurm allocation: SLURM_JOB_NODELIST is not set")
    names = _ask("scontrol", "show", "hostnames", nodes).split()
    addresses = node_addresses(_ask("scontrol", "--oneliner", "show", "node", nodes))
    tasks = parse_counts(environ.get("SLURM_TASKS_PER_NODE", f"1(x{len(names)})"))
    cpus = parse_counts(environ.get("SLURM_JOB_CPUS_PER_NODE", f"1(x{len(names)})"))
    entries = tuple(
        HostEntry(name, slots=slots, address=addresses.get(name, ""))
        for name, slots in zip(names, tasks, strict=True)
    )
    return Allocation(entries, dict(zip(names, cpus, strict=True)))


def node_addresses(text: str) -> dict[str, str]:
    """Return NodeName -> NodeAddr from the output of ``scontrol --oneliner show node``."""
    found = {}
    for line in text.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "NodeName" in fields and "NodeAddr" in fields:
            found[fields["NodeName"]] = fields["NodeAddr"]
    return found


def usable_nodes(text: str) -> frozenset[str]:
    """Return the nodes that can run steps, from the output of ``scontrol --oneliner show node``.

    A node that is drained ends no job that it has; one that does not respond has a ``*``.
    """
    usable = set()
    for line in text.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        state = fields.get("State", "")
        if "*" not in state and not _AWAY.intersection(state.split("+")):
            usable.add(fields.get("NodeName", ""))
    return frozenset(usable)


def _ask(*argv: str) -> str:
    if shutil.which(argv[0]) is None:
        raise UserError(f"there is no {argv[0]} here: --backend=slurm needs Slurm's commands")
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=ASK_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{shlex.join(argv)} failed: no answer in {ASK_TIMEOUT_S} s") from error
    if done.returncode:
        raise UserError(f"{shlex.join(argv)} failed: {done.stderr.strip()}")
    return done.stdout


class SlurmBackend:
    """Runs commands as job steps in an allocation."""

    def __init__(self, allocation: Allocation, *, job: str = "") -> None:
        """Take an allocation; `job` is its number, with which its nodes can be asked for again."""
        self._allocation = allocation
        self._job = job

    def hosts(self, num_workers: int) -> tuple[Host, ...]:
        """Return the node of each worker; a node runs as many workers as it has tasks."""
        return tuple(map(_host, fill_slots(self._allocation.nodes, num_workers)))

    def list_hosts(self) -> tuple[Host, ...]:
        """Return the slots of the nodes that the job still has and that are up.

        Slurm takes a node that it has declared down out of a job that it does not kill.

        Raises:
          UserError: Slurm's commands fail.
        """
        nodes = self._allocation.nodes
        if self._job:
            kept = _ask("squeue", "--noheader", f"--jobs={self._job}", "--format=%N").strip()
            names = set(_ask("scontrol", "show", "hostnames", kept).split())
            names &= usable_nodes(_ask("scontrol", "--oneliner", "show", "node", kept))
            nodes = tuple(entry for entry in nodes if entry.name in names)
        return tuple(map(_host, fill_slots(nodes, sum(entry.slots for entry in nodes))))

    def opened(self, hosts: Sequence[Host]) -> contextlib.AbstractContextManager[None]:
        """Do nothing: the allocation exists already."""
        del hosts
        return contextlib.nullcontext()

    def choose_ports(self, hosts: Sequence[Host], first_port: int | None) -> tuple[int, ...]:
        """Return ports; the check of the hosts finds out whether they are free."""
        return far_ports(len(hosts), first_port)

    def command(self, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> HostCommand:
        """Return a job step that runs `argv` on the host's node, beside other steps."""
        slots = next(entry.slots for entry in self._allocation.nodes if entry.name == host.name)
        step = (
            "srun", "--nodes=1", "--ntasks=1", f"--nodelist={host.name}", "--overlap", "--mem=0",
            f"--cpus-per-task={max(1, self._allocation.cpus[host.name] // slots)}",
            "--unbuffered", "--export=ALL", "--quiet",
        )  # fmt: skip
        return HostCommand((*step, "--", *argv), dict(env))


def _host(entry: HostEntry) -> Host:
    return Host(entry.name, entry.address or entry.name, sys.executable, remote=True)


@dataclass(frozen=True)
class SlurmSubmitter:
    """Renders batch scripts and gives them to sbatch.

    Attributes:
      time_limit: as sbatch reads it; "" leaves it to the partition.
      partition: the partition; "" takes Slurm's default.
      more: further options of sbatch.
    """

    time_limit: str = ""
    partition: str = ""
    more: tuple[str, ...] = ()
    far = False

    def render(self, submission: Submission) -> str:
        """Return the batch script.

        Raises:
          UserError: Slurm cannot name the log after the run directory.
        """
        words = (*module_argv("tenfold"), *submission.command_line)
        return _SCRIPT.format(
            settings="\n".join(f"#SBATCH {line}" for line in self._settings(submission)),
            command=shlex.join(words),
        )

    def _settings(self, submission: Submission) -> list[str]:
        log = _log_pattern(submission.spec)
        lines = [
            f"--job-name={_quoted(PurePosixPath(submission.spec.run_dir).name)}",
            f"--nodes={submission.spec.num_workers + submission.spare_hosts}",
            "--ntasks-per-node=1",
            f"--chdir={_quoted(submission.spec.cwd)}",
            f"--output={_quoted(log)}",
            "--open-mode=append",
            "--requeue",
            f"--signal=B:USR1@{NOTICE_S}",
        ]
        # By default Slurm ends a job that has lost a node.
        lines += ["--no-kill"] if submission.outlives_hosts else []
        lines += [f"--time={self.time_limit}"] if self.time_limit else []
        lines += [f"--partition={_quoted(self.partition)}"] if self.partition else []
        return lines + [_quoted(word) for word in self.more]

    def submit(self, text: str, submission: Submission) -> Submitted:
        """Hand the script to sbatch; return the job's number, and a message with its log.

        Raises:
          UserError: there is no sbatch.
          JobError: sbatch fails.
        """
        if shutil.which("sbatch") is None:
            raise UserError("there is no sbatch here: --backend=slurm needs Slurm's commands")
        stem = _log_stem(submission.spec)
        Path(stem).parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["sbatch", "--parsable"], input=text, capture_output=True, text=True)
        if done.returncode:
            raise JobError(f"sbatch failed: {done.stderr.strip()}")
        number = done.stdout.strip().partition(";")[0]
        message = f"submitted job {number}: its log is {stem}.slurm-{number}.log"
        return Submitted(message, SubmittedJob("slurm", number))


def _quoted(text: str) -> str:
    """Return `text` quoted for an #SBATCH line.

    sbatch quotes as a shell does, but a backslash escapes inside all quotes (tried on 22.05).
    """
    return shlex.quote(text.replace("\\", "\\\\"))


def _log_pattern(spec: JobSpec) -> str:
    """Return the log's name for sbatch, which replaces %j by the job's number.

    Raises:
      UserError: the run directory has a backslash, which turns this replacement off.
    """
    stem = _log_stem(spec)
    if "\\" in stem or "\n" in stem:
        raise UserError(
            f"run_dir {stem!r} has a backslash or a line break, with which Slurm cannot name the "
            "job's log beside it: choose another --run_dir"
        )
    return stem.replace("%", "%%") + ".slurm-%j.log"


def _log_stem(spec: JobSpec) -> str:
    """Return the path of the log without its suffix: beside the run directory.

    The log of a remote run directory is in the working directory, named after its last part.
    """
    name = PurePosixPath(spec.run_dir).name
    return os.path.join(spec.cwd, name) if is_url(spec.run_dir) else spec.run_dir


# Slurm sends USR1 to the script only, NOTICE_S before the time limit, and TERM when the job is
# preempted or cancelled. The launch forwards TERM; workers save a checkpoint and stop. After a
# preemption Slurm requeues the job; at the time limit the script has to do it.
_SCRIPT: Final = """\
#!/bin/bash
{settings}
{command} &
launch=$!
again=
trap 'again=yes; kill -TERM $launch' USR1
trap 'kill -TERM $launch' TERM
wait $launch
status=$?
# A trap interrupts wait while the launch still runs.
while kill -0 $launch 2>/dev/null; do wait $launch; status=$?; done
if [ -n "$again" ] && [ $status -ne 0 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
"""


def job_state(job: SubmittedJob) -> str:
    """Return the state of a batch job, with the reason why it waits.

    Raises:
      UserError: Slurm's commands are missing.
    """
    try:
        state, _, reason = _ask("squeue", "--noheader", f"--jobs={job.job}", "--format=%T %r") \
            .strip().partition(" ")  # fmt: skip
    except UserError:
        if shutil.which("squeue") is None:
            raise
        state, reason = "", ""  # squeue fails for a job that Slurm has forgotten
    waits = f" ({reason})" if reason not in ("", "None") else ""
    return f"{state.lower()}{waits}" if state else "not in the queue any more"


def cancel_job(job: SubmittedJob, *, running: bool) -> str:
    """Take a waiting job out of the queue; a running launch saves and stops by itself.

    Raises:
      UserError: Slurm's commands are missing, or there is no such job in the queue.
    """
    if running:
        return ""
    if job_state(job).startswith("not in"):
        raise UserError(f"Slurm job {job.job} is not in the queue any more")
    _ask("scancel", job.job)
    return f"cancelled Slurm job {job.job}"


def create(options: Mapping[str, str]) -> Backend:
    """Return the back end, for use inside an allocation.

    Raises:
      UserError: this process is not in an allocation.
    """
    del options  # the submission has used them
    return SlurmBackend(read_allocation(os.environ), job=os.environ.get("SLURM_JOB_ID", ""))


def submitter(options: Mapping[str, str]) -> Submitter | None:
    """Return the submitter; None inside an allocation.

    Raises:
      UserError: an option has a wrong value.
    """
    if "SLURM_JOB_ID" in os.environ:
        return None
    limit = options.get("time_limit", "")
    if limit and not _TIME.fullmatch(limit):
        raise UserError(f"time_limit '{limit}': write minutes, 2:00:00 or 1-12:00:00")
    try:
        more = tuple(shlex.split(options.get("sbatch", "")))
    except ValueError as error:
        raise UserError(f"sbatch '{options['sbatch']}': {error}") from error
    for word in more:
        if not word.startswith("--") or "\n" in word:
            raise UserError(f"sbatch: '{word}' is not an option: write --name=value")
    return SlurmSubmitter(limit, options.get("partition", ""), more)
