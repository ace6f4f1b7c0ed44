"""Test whether hosts share a folder: create a token file here, look for it there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = ".tenfold-token-"


@contextlib.contextmanager
def token_near(folder: str) -> Iterator[str]:
    """Create an empty file in `folder`, or its nearest ancestor that exists, for the context.

    Yields:
      The path of the file; "" where the folder cannot be written to.
    """
    existing = Path(folder)
    while not existing.is_dir() and existing != existing.parent:
        existing = existing.parent
    token = existing / f"{PREFIX}{os.urandom(8).hex()}"
    try:
        token.touch()
    except OSError:
        yield ""
        return
    try:
        yield str(token)
    finally:
        token.unlink(missing_ok=True)
