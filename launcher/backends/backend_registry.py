"""Back ends: which hosts there are, and how an argv runs on one of them.

A back end is a module with OPTIONS (its own flags of the launch command) and
`create(options) -> Backend`, or, where the platform starts and supervises the job by itself,
`submitter(options) -> Submitter | None`. BACKENDS is the table of them.
"""

import difflib
import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Final

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Backend, Option, Submitter

BACKENDS: Final = {
    "local": "tenfold.launcher.backends.local",
    "netns": "tenfold.launcher.backends.netns",
    "ssh": "tenfold.launcher.backends.ssh",
    "slurm": "tenfold.launcher.backends.slurm",
    "kubernetes": "tenfold.launcher.backends.kubernetes",
}


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
