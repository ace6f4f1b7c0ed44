"""environment.json: the command, machine and package versions of a launch."""

import getpass
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

from tenfold.data.runtime.cpus import usable_cpus
from tenfold.data.runtime.installed_versions import installed_versions
from tenfold.data.storage.local_folder import replace_file
from tenfold.launcher.job.run_dir import ENVIRONMENT_FILE

_PACKAGES: Final = ("tenfold", "tensorflow", "keras", "numpy", "protobuf", "fsspec", "gcsfs")


def describe_environment() -> dict[str, Any]:
    """Return the user, machine, command and package versions of this process, by name.

    Environment variables are left out, because they may hold secrets.
    """
    installed = installed_versions(_PACKAGES)
    return {
        "launched": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": list(sys.argv),
        "user": _user(),
        "host": os.uname().nodename,
        "system": _system(),
        "processors": usable_cpus(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": sys.version.split()[0],
        "packages": {name: installed[name] for name in _PACKAGES if name in installed},
    }


def environment_text() -> str:
    """Return the text of environment.json."""
    return json.dumps(describe_environment(), indent=1, ensure_ascii=False) + "\n"


def write_environment_file(run_dir: Path) -> None:
    """Write environment.json into a run directory."""
    replace_file(run_dir / ENVIRONMENT_FILE, environment_text().encode())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # the user of a container may have no name
        return ""


def _system() -> str:
    """Return kernel, machine and C library, as `platform.platform`, which starts a program."""
    system = os.uname()
    parts = [system.sysname, system.release, system.machine]
    if "CS_GNU_LIBC_VERSION" in os.confstr_names:
        parts.append(os.confstr("CS_GNU_LIBC_VERSION") or "")
    return " ".join(filter(None, parts))
