"""Protocols and values of back ends: the hosts of a job, and how a command runs on a host."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from tenfold.launcher.job.job_spec import HostCommand, JobSpec, SubmittedJob
from tenfold.launcher.worker.python_argv import remote_module_argv

MEMBER_RENDEZVOUS_S: Final = 3600
MEMBER_GRACE_S: Final = 45


@dataclass(frozen=True)
class Host:
    """A machine, real or simulated, on which workers run.

    Attributes:
      name: its name in messages and for the back end.
      address: its address in TF_CONFIG.
      python: the interpreter there that has tenfold installed.
      remote: whether it is another machine, with its own cores and a connection that can break.
    """

    name: str
    address: str
    python: str
    remote: bool = False


@dataclass(frozen=True)
class Option:
    """A flag of a back end. The command line holds its text; the back end parses it.

    Attributes:
      name: its name.
      help: its line in --help.
      is_switch: whether it has no value; its text is then "true" where it is given.
    """

    name: str
    help: str
    is_switch: bool = False


class Backend(Protocol):
    """The hosts of a job, and how a command runs on one of them."""

    def hosts(self, num_workers: int) -> tuple[Host, ...]:
        """Return the host of each worker, by worker index; a host may run several workers.

        Creates and starts nothing.

        Raises:
          UserError: there are too few hosts.
        """
        ...

    def opened(self, hosts: Sequence[Host]) -> AbstractContextManager[None]:
        """Return a context in which commands can run on `hosts`; its end cleans up.

        Raises:
          UserError: a host cannot be created or reached.
        """
        ...

    def choose_ports(self, hosts: Sequence[Host], first_port: int | None) -> tuple[int, ...]:
        """Return a free TCP port for each worker: `first_port` + worker index where given.

        Once the back end is opened, all `hosts` reach a worker's port at its host's address.

        Raises:
          UserError: a requested port is taken; the message names the process that holds it.
        """
        ...

    def command(self, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> HostCommand:
        """Return the command to run on this machine so that `argv` runs on `host`.

        Its standard streams are those of `argv`. Where the command is killed or its standard
        input closes, the standard input of `argv` has to close too.

        Args:
          host: a host from `hosts`.
          argv: the program and its arguments, free of shell syntax.
          env: environment variables for `argv`. No secrets: all users of a machine can read them.
        """
        ...


@runtime_checkable
class ListedHosts(Protocol):
    """A method of back ends whose hosts may change while a job runs; usable while it is opened.

    `hosts(N)` returns the first N entries of the same list.
    """

    def list_hosts(self) -> tuple[Host, ...]:
        """Return the hosts that workers can be started on now, one entry per worker, in order.

        A thread of the supervisor calls it too, but never at the same time as another method.

        Raises:
          UserError: the list cannot be read now; the job then keeps the list that it has.
        """
        ...


@runtime_checkable
class FaultyHosts(Protocol):
    """Methods that a back end adds for --inject=unplug and freeze; usable while it is opened."""

    def unplug(self, host: Host) -> None:
        """Disconnects the host from the network."""
        ...

    def heal(self, host: Host) -> None:
        """Connect the host again."""
        ...

    def freeze(self, host: Host) -> None:
        """Stop all processes on the host."""
        ...

    def thaw(self, host: Host) -> None:
        """Continue all processes on the host."""
        ...


@dataclass(frozen=True)
class Submission:
    """A job for a platform that starts and supervises it.

    Attributes:
      spec: the job.
      command_line: the launch command that runs the same job, without the program's name.
      max_restarts: restarts after crashes.
      member_command: the launch command by which each worker joins the job, without the program's
        name: for platforms that say by their own variables which worker a container is.
      spare_hosts: how many hosts stand by, besides those of the workers.
      outlives_hosts: whether the job can go on without one of its hosts.
    """

    spec: JobSpec
    command_line: tuple[str, ...]
    max_restarts: int
    member_command: tuple[str, ...] = ()
    spare_hosts: int = 0
    outlives_hosts: bool = False

    @property
    def member_argv(self) -> tuple[str, ...]:
        """The argv of a container in which one worker joins the job.

        Containers start at different times, some after their machines were created, and the
        platforms kill them about a minute after SIGTERM.
        """
        command = list(self.member_command)
        for flag in (f"--rendezvous_timeout={MEMBER_RENDEZVOUS_S}", f"--grace={MEMBER_GRACE_S}"):
            name = flag.partition("=")[0] + "="
            if not any(word.startswith(name) for word in command[: _flags_end(command)]):
                command.insert(1, flag)
        return remote_module_argv("tenfold", command, python="python")


def _flags_end(command: Sequence[str]) -> int:
    return command.index("--") if "--" in command else len(command)


@dataclass(frozen=True)
class Submitted:
    """A job that a platform has taken: a message for the user, and the platform's name for it."""

    message: str
    job: SubmittedJob


class JobControl(Protocol):
    """Functions of a back end's module that `tenfold status` and `tenfold cancel` call."""

    def job_state(self, job: SubmittedJob) -> str:
        """Return the state of a job in the platform's words.

        Raises:
          UserError: the platform's commands are missing on this machine.
          JobError: the platform does not answer.
        """
        ...

    def cancel_job(self, job: SubmittedJob, *, running: bool) -> str:
        """End a job; return a message, or "" to have its launcher asked in the run directory.

        Args:
          job: the job.
          running: whether its launcher runs and will obey.

        Raises:
          UserError: the platform's commands are missing on this machine.
          JobError: the platform refuses.
        """
        ...


class Submitter(Protocol):
    """Hands a job to a platform. With `far`, its workers do not see this machine's files."""

    far: bool

    def render(self, submission: Submission) -> str:
        """Return the platform's description of the job: a batch script or manifests."""
        ...

    def submit(self, text: str, submission: Submission) -> "Submitted | str":
        """Submit a rendered text; return how the platform knows the job, or only a message.

        Raises:
          UserError: the platform's commands are missing on this machine.
          JobError: the platform refuses the job.
        """
        ...
