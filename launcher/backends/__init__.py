"""Back ends: which hosts there are, and how an argv runs on one of them.

A back end is a module with `create(options) -> Backend`; BACKENDS is the table of them.
"""

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tenfold.data.errors import UserError
from tenfold.launcher.job import HostCommand

BACKENDS: Final = {
    "local": "tenfold.launcher.backends.local",
}


@dataclass(frozen=True)
class Host:
    """Where a worker runs: `address` is what TF_CONFIG names, `python` its interpreter."""

    name: str
    address: str
    python: str


class Backend(Protocol):
    """Knows the hosts and how a program is run on one of them."""

    def hosts(self, num_workers: int) -> tuple[Host, ...]:
        """Returns the host of each worker, by worker index; one may serve several.

        Raises:
          UserError: there are not enough.
        """
        ...

    def command(self, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> HostCommand:
        """Returns what the supervisor runs here so that `argv` runs on `host`, its standard
        streams connected, with `env` set.
        """
        ...


def load_backend(name: str, options: Mapping[str, str] | None = None) -> Backend:
    """Returns the back end called `name`.

    Raises:
      UserError: there is none of this name; the message lists them.
    """
    if name not in BACKENDS:
        near = difflib.get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(BACKENDS)}"
        raise UserError(f"unknown back end '{name}': {hint}")
    backend: Backend = importlib.import_module(BACKENDS[name]).create(options or {})
    return backend
