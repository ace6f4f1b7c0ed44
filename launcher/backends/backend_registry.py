"""Back ends by name: the built-in ones, and modules or objects of the user's own.

A back end is a module, or any object, with OPTIONS (its own flags of `launch`) and one of:

- ``create(options) -> Backend``: Tenfold runs and supervises the job on the back end's hosts;
- ``submitter(options) -> Submitter | None``: a platform starts and supervises the job. A module
  that has `create` too returns None where the job is to be supervised from here. With the
  functions of `JobControl`, `tenfold status` and `cancel` reach the job on the platform.
"""

import functools
import importlib
from collections.abc import Mapping
from typing import Any, Final

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.runtime.user_code import import_user_module, load_user_object, names_user_object
from tenfold.launcher.backends.base import Backend, JobControl, Option, Submitter

BACKENDS: Final = {
    "local": "tenfold.launcher.backends.local",
    "netns": "tenfold.launcher.backends.netns",
    "ssh": "tenfold.launcher.backends.ssh",
    "slurm": "tenfold.launcher.backends.slurm",
    "kubernetes": "tenfold.launcher.backends.platforms.kubernetes",
    "vertex": "tenfold.launcher.backends.platforms.vertex",
    "join": "tenfold.launcher.backends.join",
}


def own_options(name: str) -> tuple[Option, ...]:
    """Return the options of one back end; no other is imported.

    Raises:
      UserError: there is no such back end.
    """
    return tuple(_load(name).OPTIONS)


def backend_options(chosen: str = "local") -> dict[str, tuple[Option, ...]]:
    """Return the options of every built-in back end, and of the `chosen` one, by its name.

    Raises:
      UserError: there is no back end `chosen`.
    """
    return {name: own_options(name) for name in dict.fromkeys([*BACKENDS, chosen])}


def load_backend(name: str, options: Mapping[str, str] | None = None) -> Backend:
    """Return a back end that runs commands on hosts.

    Args:
      name: a name in BACKENDS, ``file.py``, ``file.py:name`` or ``module:name``.
      options: values of its OPTIONS by name; options that are not given are missing.

    Raises:
      UserError: there is no such back end, its hosts cannot be reached from here, or an option
        is another back end's or has a wrong value.
    """
    found = _load(name)
    if not hasattr(found, "create"):
        raise UserError(f"the hosts of --backend={name} cannot be looked at from here")
    backend: Backend = found.create(_checked(name, options or {}))
    return backend


def load_submitter(name: str, options: Mapping[str, str] | None = None) -> Submitter | None:
    """Return the submitter of a back end; None where the job is supervised from here.

    Args:
      name: as for `load_backend`.
      options: as for `load_backend`.

    Raises:
      UserError: as `load_backend`.
    """
    found = _load(name)
    if not hasattr(found, "submitter"):
        return None
    submitter: Submitter | None = found.submitter(_checked(name, options or {}))
    return submitter


def load_job_control(name: str) -> JobControl:
    """Return the functions that look after jobs on the platform of a back end.

    Raises:
      UserError: there is no such back end, or it cannot look after jobs.
    """
    found = _load(name)
    if not (hasattr(found, "job_state") and hasattr(found, "cancel_job")):
        raise UserError(f"--backend={name} has no functions job_state and cancel_job")
    control: JobControl = found
    return control


@functools.cache
def _load(name: str) -> Any:
    """Return the module or object of a back end; a file of the user's is run once."""
    if name in BACKENDS:
        return importlib.import_module(BACKENDS[name])
    if name.endswith(".py"):
        found: Any = _import_file(name)
    elif names_user_object(name):
        found = load_user_object(name, "back end")
    else:
        hint = did_you_mean(name, BACKENDS)
        raise UserError(f"unknown back end '{name}': {hint}")
    if not hasattr(found, "OPTIONS") or not (
        hasattr(found, "create") or hasattr(found, "submitter")
    ):
        raise UserError(f"back end '{name}' needs OPTIONS and a function create(options)")
    return found


def _import_file(name: str) -> Any:
    try:
        return import_user_module(name, "back end")
    except UserError:
        raise
    except Exception as error:  # whatever a file of the user's raises
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"back end '{name}' cannot be imported: {reason}") from error


def _checked(name: str, options: Mapping[str, str]) -> Mapping[str, str]:
    own = {option.name for option in own_options(name)}
    for option in options:
        if option not in own:
            owners = [
                backend
                for backend, listed in backend_options(name).items()
                if option in {each.name for each in listed}
            ]
            raise UserError(f"--{option} is for --backend={' or '.join(owners)}, not for {name}")
    return options
