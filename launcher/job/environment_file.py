"""environment.json: the command, machine and package versions of a launch.

Versions come from package metadata: importing TensorFlow here would cost seconds.
"""

import getpass
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tenfold.data.runtime.process_pool import usable_cpus
from tenfold.data.storage.local_folder import replace_file
from tenfold.launcher.job.run_dir import ENVIRONMENT_FILE

_PACKAGES: Final = ("tenfold", "tensorflow", "keras", "numpy", "protobuf", "fsspec", "gcsfs")


def describe_environment() -> dict[str, Any]:
    """Return the user, machine, command and package versions of this process, by name.

    Environment variables are left out, because they may hold secrets.
    """
    return {
        "launched": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": list(sys.argv),
        "user": _user(),
        "host": platform.node(),
        "system": platform.platform(),
        "processors": usable_cpus(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
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


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
