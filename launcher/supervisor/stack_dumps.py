"""Where hanging workers are, from the Python stacks that they print. Pure.

PYTHONFAULTHANDLER makes Python print the stack of every thread on SIGABRT, the main thread last,
innermost frame first (docs.python.org/3/library/faulthandler.html). A TensorFlow thread has a
Python stack only while it calls into Python. A step makes such a call to get input that is not
ready yet.
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
INPUT: Final = "waiting for input"
USER_CODE: Final = "in user code"
_CALL: Final = "in a TensorFlow call (a step or a collective)"
# The file from which TensorFlow calls a numpy_function, a py_function or a generator.
_FROM_TENSORFLOW: Final = "/tensorflow/python/ops/script_ops.py"
_PLACES: Final = (
    (INPUT, re.compile(r"tensorflow/python/data/|/grain/")),
    ("writing or reading a checkpoint", re.compile(r"checkpoint|/saving/|numpy/lib/")),
    (_CALL, re.compile(r"/tensorflow/|/keras/")),
)


class StackFrame(NamedTuple):
    """One frame of a stack."""

    file: str
    line: int
    function: str


def thread_stacks(lines: Sequence[str]) -> list[tuple[StackFrame, ...]]:
    """Parse the output of faulthandler.

    Returns:
      The frames of each thread, innermost first; the main thread is the last.
    """
    stacks: list[list[StackFrame]] = []
    inside = False
    for line in lines:
        match = _FRAME.match(line)
        if _THREAD.match(line):
            stacks.append([])
            inside = True
        elif inside and match:
            stacks[-1].append(StackFrame(match["file"], int(match["line"]), match["name"]))
        else:
            inside = False
    return [tuple(stack) for stack in stacks]


def describe_location(lines: Sequence[str]) -> str:
    """Return where a worker was, in a few words; empty where it printed no stack."""
    *others, main = thread_stacks(lines) or [()]
    if not main:
        return ""
    frame = _own_frame(main)
    place = _place(frame.file)
    calls = (stack for stack in others if any(f.file.endswith(_FROM_TENSORFLOW) for f in stack))
    called = next(calls, None)
    if place == _CALL and called:
        place, frame = INPUT, _own_frame(called)
    return f"{place}: {frame.file}:{frame.line} in {frame.function}"


def _own_frame(stack: Sequence[StackFrame]) -> StackFrame:
    """Return the innermost frame outside the standard library: the code that waits for a lock."""
    return next((frame for frame in stack if not _STDLIB.search(frame.file)), stack[0])


def _place(file: str) -> str:
    if file.startswith(_OURS):
        return "in tenfold's own code"
    return next((words for words, pattern in _PLACES if pattern.search(file)), USER_CODE)


def holds_up_others(lines: Sequence[str]) -> bool:
    """Whether the other workers wait for this one: it is in user code or waits for input."""
    return describe_location(lines).startswith((USER_CODE, INPUT))
