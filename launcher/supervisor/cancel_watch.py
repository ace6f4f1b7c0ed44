"""Obeys `tenfold cancel`: a file in the run directory asks the launcher to stop."""

import signal
import threading
from contextlib import suppress
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job.run_dir import CANCEL_FILE
from tenfold.launcher.worker.stop_signals import StopRequest

LOCAL_INTERVAL_S: Final = 1.0
REMOTE_INTERVAL_S: Final = 5.0


class CancelWatch:
    """A context in which a request to cancel counts as a SIGTERM.

    A daemon thread reads, because storage may be slow. Members of a joined job each watch, and
    the chief removes the request once it has ended.
    """

    def __init__(self, where: str, stop: StopRequest, *, is_chief: bool = True) -> None:
        """Prepare to watch.

        Args:
          where: the run directory.
          stop: the requests to stop this process.
          is_chief: whether this process removes requests.
        """
        self._where = where
        self._stop = stop
        self._is_chief = is_chief
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancel-watch", daemon=True)

    def __enter__(self) -> "CancelWatch":
        self._remove()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._stop.signal is not None:
            self._remove()

    def _remove(self) -> None:
        if self._is_chief:
            with suppress(OSError, JobError, UserError):
                open_folder(self._where).remove(CANCEL_FILE)

    def _run(self) -> None:
        folder = open_folder(self._where)
        while not self._closed.wait(
            REMOTE_INTERVAL_S if is_url(self._where) else LOCAL_INTERVAL_S
        ):
            # Storage that fails for a while is read again at the next interval.
            with suppress(OSError, JobError, UserError):
                if folder.read(CANCEL_FILE) is not None:
                    self._stop.request(signal.SIGTERM)
                    return
