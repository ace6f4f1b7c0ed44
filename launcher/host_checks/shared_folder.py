"""Whether other hosts see a folder of this one: a token is laid there for them to find."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = ".tenfold-token-"


@contextlib.contextmanager
def token_near(folder: str) -> Iterator[str]:
    """Lays an empty file into `folder`, or into the nearest folder above it that exists, for as
    long as it is a context. Yields its path; empty where nothing can be written there.
    """
    place = Path(folder)
    while not place.is_dir() and place != place.parent:
        place = place.parent
    token = place / f"{PREFIX}{secrets.token_hex(8)}"
    try:
        token.touch()
    except OSError:
        yield ""
        return
    try:
        yield str(token)
    finally:
        token.unlink(missing_ok=True)
