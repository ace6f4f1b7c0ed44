"""Saves checkpoints in processes that are killed, each a moment later than the last.

python killed_saves.py FOLDER  ->  one line of JSON, an object per death:
  `found`: how many steps before the attempted one each checkpoint of FOLDER is, newest first
  `next`: the same after the next save, and how many files are left besides
"""

import io
import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import numpy as np

from tenfold.data.reading.read_options import Position
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.models.training.checkpoints.checkpoint import (
    Checkpoint,
    RunState,
    checkpoint_from_bytes,
    checkpoint_name,
    checkpoint_names,
    newest_checkpoint,
    save_checkpoint,
)

FOLDER = open_folder(sys.argv[1])
REMOTE = is_url(sys.argv[1])
SIZES = (0, 1, 4096, 30_000)  # of the file's 40 KB


def save(step: int) -> None:
    state = RunState(Position(0, step), seed=1, global_batch_size=8, records=8 * step)
    values = (np.full(10_000, step, "float32"), np.array(step, "int64"))
    save_checkpoint(FOLDER, Checkpoint(state, values, ("kernel", "iterations")), keep=2)


def look() -> tuple[list[str], list[bytes], Checkpoint | None]:
    """Return the names and bytes of all checkpoints, newest first, and the newest checkpoint.

    Looks again if a server was still executing a request of a process that was killed.
    """
    while True:
        names = checkpoint_names(FOLDER)
        data = [FOLDER.read(name) or b"" for name in names]
        newest = newest_checkpoint(FOLDER)
        if checkpoint_names(FOLDER) == names:
            return names, data, newest


def steps() -> list[int]:
    """Return the steps of all checkpoints, newest first, after checking every value."""
    names, data, newest = look()
    found = [checkpoint_from_bytes(content) for content in data]
    assert newest is not None
    assert newest.state == found[0].state
    for name, checkpoint in zip(names, found, strict=True):
        step = checkpoint.state.position.step
        assert checkpoint_name(Position(0, step)) == name
        assert checkpoint.state.records == 8 * step
        assert all((value == step).all() for value in checkpoint.values)
    return [checkpoint.state.position.step for checkpoint in found]


def reaches_storage(function: Any) -> bool:
    """Return True if a call of `function`, written in C, may read or change the storage."""
    if function is os.fspath:
        return False
    if REMOTE:
        return isinstance(getattr(function, "__self__", None), socket.socket)
    files = (io.FileIO, io.BufferedWriter)
    own = isinstance(getattr(function, "__self__", None), files)
    return own or function is io.open or getattr(function, "__module__", "") == os.name


def die_at_call(number: int) -> None:
    """Kill this process before or after its `number`-th call that reaches the storage."""

    def look(frame: FrameType, event: str, function: Any) -> None:
        nonlocal number
        number -= event in ("c_call", "c_return") and reaches_storage(function)
        if number < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    # Requests to remote storage are made in a thread that the first of them starts.
    threading.setprofile(look)
    sys.setprofile(look)


def die_at_size(num_bytes: int) -> None:
    """Have the kernel kill this process in the middle of a write, at `num_bytes` of a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def dies(how: Callable[[], None], step: int) -> bool:
    """Save in a child process that calls `how` first; return True if it was killed."""
    child = os.fork()
    if not child:
        status = 1
        try:
            how()
            save(step)
            status = 0
        finally:
            sys.setprofile(None)
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL, -signal.SIGXFSZ), code
    return code < 0


def ways() -> Iterator[Callable[[], None]]:
    if not REMOTE:
        yield from (partial(die_at_size, size) for size in SIZES)
    yield from (partial(die_at_call, number) for number in count())


save(1)
save(2)
deaths = []
for step, way in enumerate(ways(), 3):
    if not dies(way, step):
        break
    found = [step - saved for saved in steps()]
    save(step)
    left = len(FOLDER.sizes())
    after = [step - saved for saved in steps()]
    deaths.append({"found": found, "next": after, "besides": left - len(after)})
print(json.dumps(deaths))
