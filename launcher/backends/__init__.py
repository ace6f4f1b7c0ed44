"""Back ends: which hosts there are, and how an argv runs on one of them.

A back end is a module with OPTIONS (its own flags of the launch command) and
`create(options) -> Backend`, or, where the platform starts and supervises the job by itself,
`submitter(options) -> Submitter | None`. BACKENDS is the table of them.
"""

import difflib
import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Final, Protocol, runtime_checkable

from tenfold.data.errors import UserError
from tenfold.launcher.job import HostCommand, JobSpec

BACKENDS: Final = {
    "local": "tenfold.launcher.backends.local",
    "netns": "tenfold.launcher.backends.netns",
    "ssh": "tenfold.launcher.backends.ssh",
    "slurm": "tenfold.launcher.backends.slurm",
    "kubernetes": "tenfold.launcher.backends.kubernetes",
}


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


def backend_options() -> dict[str, tuple[Option, ...]]:
    """Returns each back end's own options."""
    return {name: _module(name).OPTIONS for name in BACKENDS}


def load_backend(name: str, options: Mapping[str, str] | None = None) -> Backend:
    """Returns the back end called `name`, which has a `create`.

    Raises:
      UserError: there is none of this name, or an option is not its own or has a wrong value.
    """
    module = _module(name)
    if not hasattr(module, "create"):
        raise UserError(f"the hosts of --backend={name} cannot be looked at from here")
    backend: Backend = module.create(_checked(name, options or {}))
    return backend


def load_submitter(name: str, options: Mapping[str, str] | None = None) -> Submitter | None:
    """Returns how a job is handed to the platform; None where it is supervised here.

    Raises:
      UserError: there is none of this name, or an option is not its own or has a wrong value.
    """
    module = _module(name)
    if not hasattr(module, "submitter"):
        return None
    submitter: Submitter | None = module.submitter(_checked(name, options or {}))
    return submitter


def _module(name: str) -> ModuleType:
    if name not in BACKENDS:
        near = difflib.get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(BACKENDS)}"
        raise UserError(f"unknown back end '{name}': {hint}")
    return importlib.import_module(BACKENDS[name])


def _checked(name: str, options: Mapping[str, str]) -> Mapping[str, str]:
    own = {option.name for option in _module(name).OPTIONS}
    for option in options:
        if option not in own:
            for_these = [other for other, has in backend_options().items() if _has(has, option)]
            raise UserError(
                f"--{option} is for --backend={' or '.join(for_these)}, not for {name}"
            )
    return options


def _has(options: Sequence[Option], name: str) -> bool:
    return any(option.name == name for option in options)
