"""The process that downloads ranges for another one; see `download_process`."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from tenfold.data.storage.gcs.download_process import (
    MAX_MESSAGE_BYTES,
    RangeFailure,
    RangeRequest,
)
from tenfold.data.storage.gcs.gcs_folder import GcsFolder

_PARENT_CHECK_S: Final = 1.0


def serve(parent: int, *descriptors: int) -> None:
    """Serve requests until the process that has started this one ends.

    Args:
      parent: its number.
      descriptors: the connections' descriptors.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one

    def fetch(request: RangeRequest, descriptor: int) -> int:
        folder = GcsFolder(request.folder)
        return folder.download_range(request.name, request.offset, request.length, descriptor)

    threads = [
        threading.Thread(target=_serve_connection, args=(socket.socket(fileno=number), fetch))
        for number in descriptors
    ]
    for thread in threads:
        thread.daemon = True
        thread.start()
    # A process that the parent has forked may hold our connections open when the parent is gone.
    while os.getppid() == parent and any(thread.is_alive() for thread in threads):
        threads[0].join(_PARENT_CHECK_S)
    os._exit(0)


def _serve_connection(
    connection: socket.socket, fetch: Callable[[RangeRequest, int], int]
) -> None:
    connection.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, 1)
        if not message:
            return
        answer: Any
        try:
            answer = fetch(RangeRequest(**json.loads(message)), descriptors[0])
        except Exception as error:  # noqa: BLE001  the parent raises it
            number = error.errno if isinstance(error, OSError) else None
            text = error.strerror if number and isinstance(error, OSError) else str(error)
            answer = asdict(RangeFailure(type(error).__name__, str(text), number or 0))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        connection.send(json.dumps(answer).encode())
