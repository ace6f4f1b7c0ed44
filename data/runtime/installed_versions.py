"""The versions of installed distributions, by the names of their metadata folders.

`importlib.metadata` parses whole metadata files with the e-mail parser: importing it and asking
for a handful of versions takes 50 ms, a quarter of a short command.
"""

import os
import sys
from collections.abc import Iterable

_SUFFIX = ".dist-info"


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of `distributions` that are installed, by their names.

    A wheel's metadata is in a folder ``{name}-{version}.dist-info``, in which the name has
    neither dashes nor dots (packaging.python.org, "Binary distribution format"). As in an import,
    the first folder of `sys.path` wins.
    """
    wanted = {_normalized(name): name for name in distributions}
    found: dict[str, str] = {}
    for folder in sys.path:
        for entry in _metadata_folders(folder):
            name, _, version = entry.removesuffix(_SUFFIX).partition("-")
            asked = wanted.get(_normalized(name))
            if asked is not None and version:
                found.setdefault(asked, version)
    return found


def _metadata_folders(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder or ".") if name.endswith(_SUFFIX)]
    except OSError:  # sys.path may name zip files, and folders that do not exist
        return []


def _normalized(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
