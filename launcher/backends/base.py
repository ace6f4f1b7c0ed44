"""What a back end is: which hosts there are, and how an argv runs on one of them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tenfold.launcher.job.job_spec import HostCommand, JobSpec


@dataclass(frozen=True)
class Host:
    """Where a worker runs: `address` is what TF_CONFIG names, `python` its interpreter.

    A `remote` host is another machine: it has cores of its own, and the way to it can break.
    """

    name: str
    address: str
    python: str
    remote: bool = False


@dataclass(frozen=True)
class Option:
    """A flag of a back end: text to the command line, parsed by the back end."""

    name: str
    help: str


class Backend(Protocol):
    """Knows the hosts and how a program is run on one of them."""

    def hosts(self, num_workers: int) -> tuple[Host, ...]:
        """Returns the host of each worker, by worker index; one may serve several.

        Nothing is made or started for it.

        Raises:
          UserError: there are not enough.
        """
        ...

    def opened(self, hosts: Sequence[Host]) -> AbstractContextManager[None]:
        """Makes `hosts` ready for commands, and cleans up behind itself.

        Raises:
          UserError: a host cannot be made or reached.
        """
        ...

    def choose_ports(self, hosts: Sequence[Host], first_port: int | None) -> tuple[int, ...]:
        """Returns a TCP port per host that is free there: `first_port` + index where given.

        Raises:
          UserError: a port that was asked for is taken; the message says by whom.
        """
        ...

    def command(self, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> HostCommand:
        """Returns what the supervisor runs here so that `argv` runs on `host`, its standard
        streams connected, with `env` set.
        """
        ...


@runtime_checkable
class FaultyHosts(Protocol):
    """What a back end has besides whose hosts can fail on purpose, while it is opened."""

    def unplug(self, host: Host) -> None:
        """Takes the host off the network."""
        ...

    def heal(self, host: Host) -> None:
        """Puts it back."""
        ...

    def freeze(self, host: Host) -> None:
        """Makes everything on the host stand still."""
        ...

    def thaw(self, host: Host) -> None:
        """Lets it go on."""
        ...


@dataclass(frozen=True)
class Submission:
    """What a platform gets that supervises by itself.

    `command_line` is the launch command that would run the job, without the program's name.
    """

    spec: JobSpec
    command_line: tuple[str, ...]
    max_restarts: int


class Submitter(Protocol):
    """Hands a job to a platform. With `far` its workers do not see this machine's files."""

    far: bool

    def render(self, submission: Submission) -> str:
        """Returns the text that describes the job to the platform."""
        ...

    def submit(self, text: str, submission: Submission) -> str:
        """Hands a rendered text over; returns what to tell the user.

        Raises:
          JobError: the platform does not take it.
        """
        ...
