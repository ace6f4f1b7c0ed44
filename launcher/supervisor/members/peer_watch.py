"""Stops a member's worker once another member has failed.

TensorFlow tells a worker of a lost peer by an error. A program that waits for its peer without
TensorFlow, or in host work, would wait for ever.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import Folder, is_url
from tenfold.launcher.job.members.member_files import MemberResult, member_result_file, read_value
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.worker_processes import WorkerProcesses

LOCAL_INTERVAL_S: Final = 1.0
REMOTE_INTERVAL_S: Final = 10.0
# TensorFlow's own error, which says more, arrives within this time in most cases.
OWN_ERROR_S: Final = 10.0


class PeerWatch:
    """An `Injector` that blames the first peer to fail, until `close`.

    A daemon thread reads the peers' results, because storage may be slow; `_failed` is written by
    that thread alone, once, and read by the thread that calls `act`.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        index: int,
        num_workers: int,
        earlier: Mapping[int, MemberResult],
    ) -> None:
        """Begin to watch.

        Args:
          folder: the run directory.
          index: the worker that must not wait for ever.
          num_workers: the number of workers.
          earlier: results of an earlier start, which do not count.
        """
        self._folder = folder
        self._peers = [peer for peer in range(num_workers) if peer != index]
        self._earlier = earlier
        self._failed: tuple[float, MemberResult] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peer-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        interval_s = REMOTE_INTERVAL_S if is_url(self._folder.path) else LOCAL_INTERVAL_S
        while self._failed is None and not self._closed.wait(interval_s):
            for peer in self._peers:
                # Storage that fails for a while is read again at the next interval.
                with suppress(OSError, JobError, UserError):
                    result = read_value(self._folder, member_result_file(peer), MemberResult)
                    if result and result.status != 0 and result != self._earlier.get(peer):
                        self._failed = time.monotonic(), result
                        return

    def act(self, records: Sequence[WorkerRecord], processes: WorkerProcesses) -> None:
        """Mark the worker as the victim of a peer that failed OWN_ERROR_S ago."""
        del processes
        failed = self._failed
        if failed is None or time.monotonic() - failed[0] < OWN_ERROR_S:
            return
        peer = failed[1]
        error = peer.failure.error.split("\n", 1)[0] if peer.failure else "it was stopped"
        for record in records:
            if not record.ended and not record.echo:
                record.echo = f"stopped because worker {peer.worker} failed: {error}"

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
