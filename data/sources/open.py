"""From what a user writes after ``--source=`` to an open source."""

import os
from pathlib import Path

from tenfold.data.errors import UserError
from tenfold.data.sources.base import Source


def open_source(spec: str, scratch: Path) -> Source:
    """Returns the source that `spec` names, scanned; `scratch` is a local folder of its own.

    Raises:
      UserError: there is no such source, or it cannot be used.
    """
    path = os.path.expanduser(spec)
    if os.path.isdir(path):
        from tenfold.data.sources.folder import scan_folder

        return scan_folder(path, scratch)
    if not os.path.exists(path):
        raise UserError(f"source '{spec}' does not exist: check the path")
    raise UserError(f"source '{spec}' is not a folder of class folders")
