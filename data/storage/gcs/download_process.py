"""A second process that downloads large ranges: one process's Python limits a fast network.

Downloading is Python between system calls: headers, blocks, event loops, one thread at a time. A
process that may use several cores starts another Python for every second of its large ranges. It
has no TensorFlow, and writes what it receives to the descriptor that comes with the request.

Protocol, over a few connections that each serve one request at a time: the parent sends a JSON
object and the descriptor of the local file; the process answers with the range's CRC32C, or with
the error. A connection that breaks means that the other side has ended. `download_server` is the
other side.
"""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.runtime.cpus import usable_cpus
from tenfold.data.storage.gcs.gcs_client import EMULATOR_VARIABLE
from tenfold.data.storage.retry import TransientError

# Smaller ranges are not worth the way to another process.
MIN_RANGE_BYTES: Final = 8 << 20
_CONNECTIONS: Final = 4
MAX_MESSAGE_BYTES: Final = 1 << 16
_PROGRAM: Final = (
    "import sys; sys.path = [place for place in sys.path if place]; "
    "from tenfold.data.storage.gcs.download_server import serve; serve(*map(int, sys.argv[1:]))"
)
_ERRORS: Final[dict[str, type[Exception]]] = {
    kind.__name__: kind
    for kind in (UserError, JobError, TransientError, FileNotFoundError, OSError)
}


class ProcessLost(Exception):
    """The process has ended before it answered: the range must be fetched again."""


@dataclass(frozen=True)
class RangeRequest:
    """A range of an object, as a message."""

    folder: str
    name: str
    offset: int
    length: int


@dataclass(frozen=True)
class RangeFailure:
    """An error of a request, as a message; `number` is its errno, 0 for none."""

    kind: str
    message: str
    number: int = 0

    def error(self) -> Exception:
        """Return the error to raise."""
        kind = _ERRORS.get(self.kind, JobError)
        if issubclass(kind, OSError) and self.number:
            return kind(self.number, self.message)
        return kind(self.message)


class DownloadProcess:
    """The parent's side; its methods may be called from any thread."""

    def __init__(self) -> None:
        kind = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours, theirs = zip(*(socket.socketpair(*kind) for _ in range(_CONNECTIONS)), strict=True)
        numbers = [end.fileno() for end in theirs]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(os.getpid()), *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a worker's own carries its events
            pass_fds=numbers,
        )
        for end in theirs:
            end.close()
        self._connections = ours
        self._idle: SimpleQueue[socket.socket] = SimpleQueue()
        self._calls = itertools.count()
        # The process's imports take a second; meanwhile the caller downloads by itself.
        threading.Thread(target=self._await_ready, daemon=True).start()

    def _await_ready(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                if connection.recv(MAX_MESSAGE_BYTES):
                    self._idle.put(connection)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def close(self) -> None:
        """End the process once it is idle."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)

    def take(self) -> socket.socket | None:
        """Return a free connection at every second call; None where the caller is to download."""
        if next(self._calls) % 2:  # atomic, so that no lock is needed
            return None
        try:
            return self._idle.get_nowait()
        except Empty:
            return None

    def fetch_range(
        self, connection: socket.socket, request: RangeRequest, descriptor: int
    ) -> int:
        """Copy a range to a local file and return its CRC32C.

        Args:
          connection: from `take`; free again afterwards.
          request: the range.
          descriptor: the local file.

        Raises:
          ProcessLost: the process has ended.
          UserError, JobError, OSError: it could not copy the range.
        """
        try:
            message = json.dumps(asdict(request)).encode()
            socket.send_fds(connection, [message], [descriptor])
            answer = connection.recv(MAX_MESSAGE_BYTES)
        except OSError as error:
            raise ProcessLost from error
        if not answer:
            raise ProcessLost
        self._idle.put(connection)
        found = json.loads(answer)
        if isinstance(found, int):
            return found
        raise RangeFailure(**found).error()


def fetch_in_process(
    folder: str, name: str, offset: int, length: int, descriptor: int
) -> int | None:
    """Copy a range in the second process, if it is large and the process is free.

    Args:
      folder: the URL of the folder.
      name: the name of the object.
      offset: where the range begins, in bytes.
      length: bytes of the range.
      descriptor: the local file, which gets the range at the same offset.

    Returns:
      The CRC32C of the range; None where the caller must fetch it.

    Raises:
      UserError, JobError, OSError: as `Folder.fetch_range`.
    """
    if length < MIN_RANGE_BYTES or not _may_use_two_cores():
        return None
    process = _current_process()
    connection = process.take()
    if connection is None:
        return None
    try:
        return process.fetch_range(
            connection, RangeRequest(folder, name, offset, length), descriptor
        )
    except ProcessLost:
        return None


def _may_use_two_cores() -> bool:
    """Whether this process's share of the machine is two cores; the launcher sets the variable."""
    share = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return (int(share) if share.isdecimal() else usable_cpus()) >= 2


_lock = threading.Lock()
_current: tuple[tuple[int, str], DownloadProcess] | None = None


def _current_process() -> DownloadProcess:
    """Return this process's own download process; one that a fork has copied is its parent's."""
    global _current
    key = (os.getpid(), os.environ.get(EMULATOR_VARIABLE, ""))
    with _lock:
        if _current is None or _current[0] != key:
            if _current is not None and _current[0][0] == key[0]:
                _current[1].close()
            _current = (key, DownloadProcess())
        return _current[1]
