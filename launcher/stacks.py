"""What the Python stacks of hanging workers tell. Pure.

PYTHONFAULTHANDLER makes Python print the stack of every thread when it gets SIGABRT, the main
thread's last, innermost frame first (docs.python.org/3/library/faulthandler.html).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import tenfold.data
import tenfold.launcher
import tenfold.models

_THREAD = re.compile(r"^(Current thread|Thread) 0x")
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)$')
_STDLIB = re.compile(r"/lib/python3\.\d+/(?!site-packages|dist-packages)|^<frozen")
_OURS: Final = tuple(
    str(Path(package.__path__[0]).resolve()) + "/"
    for package in (tenfold.data, tenfold.launcher, tenfold.models)
)
_PLACES: Final = (
    ("waiting for input", re.compile(r"tensorflow/python/data/|/grain/")),
    ("writing or reading a checkpoint", re.compile(r"checkpoint|/saving/|numpy/lib/")),
    ("in a TensorFlow call (a step or a collective)", re.compile(r"/tensorflow/|/keras/")),
)
USER_CODE: Final = "in user code"


class Frame(NamedTuple):
    """One frame of a stack."""

    file: str
    line: int
    function: str


def main_stack(lines: Sequence[str]) -> tuple[Frame, ...]:
    """Returns the main thread's frames, innermost first, of what faulthandler printed."""
    starts = [at for at, line in enumerate(lines) if _THREAD.match(line)]
    frames = []
    for line in lines[starts[-1] + 1 :] if starts else ():
        match = _FRAME.match(line)
        if match is None:
            break
        frames.append(Frame(match["file"], int(match["line"]), match["name"]))
    return tuple(frames)


def whereabouts(lines: Sequence[str]) -> str:
    """Returns where a worker was, in a few words; empty where it printed no stack."""
    frames = main_stack(lines)
    if not frames:
        return ""
    # A wait for a lock or a queue belongs to the code that waits, not to the library.
    frame = next((frame for frame in frames if not _STDLIB.search(frame.file)), frames[0])
    return f"{_place(frame.file)}: {frame.file}:{frame.line} in {frame.function}"


def _place(file: str) -> str:
    if file.startswith(_OURS):
        return "in tenfold's own code"
    return next((words for words, pattern in _PLACES if pattern.search(file)), USER_CODE)


def is_in_user_code(lines: Sequence[str]) -> bool:
    """Says whether a worker was outside of TensorFlow: then the others wait for it."""
    return whereabouts(lines).startswith(USER_CODE)
