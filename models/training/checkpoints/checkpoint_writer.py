"""Checkpoints that are written while the training goes on."""

from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Final

from tenfold.data.reading.read_options import Position
from tenfold.data.runtime.threads import DaemonExecutor
from tenfold.data.storage.folder import Folder
from tenfold.models.training.checkpoints.checkpoint import (
    Checkpoint,
    checkpoint_bytes,
    checkpoint_name,
    save_checkpoint,
)
from tenfold.models.training.checkpoints.memory_copy import MemoryCopy

# A failed run waits so long for its last checkpoint, as losing it costs the steps before it.
_SHORT_WAIT_S: Final = 5.0


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that exists, whole, at `path`."""

    path: str
    position: Position


class CheckpointWriter:
    """Saves checkpoints in a thread, one after the other.

    A checkpoint is whole, and told by `take_saved`, some time after `start`. The values that it
    is given must not change any more. The methods are for one thread.

    Args:
      folder: the folder of the run's checkpoints; None on all workers but the chief.
      keep: how many checkpoints stay.
      copy: this host's copy of the newest; None for none.
    """

    def __init__(
        self, folder: Folder | None, *, keep: int, copy: MemoryCopy | None = None
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._copy = copy
        # A thread that hangs in storage must not keep the process from ending.
        self._executor = DaemonExecutor(1, "checkpoint")
        self._pending: Future[SavedCheckpoint | None] | None = None
        self._saved: list[SavedCheckpoint] = []

    @property
    def is_idle(self) -> bool:
        """Whether this worker saves nothing at all."""
        return self._folder is None and self._copy is None

    def start(self, checkpoint: Checkpoint) -> None:
        """Save `checkpoint` in the background, when the one before it has been saved.

        Raises:
          OSError, JobError: the one before it could not be saved.
        """
        self.wait()
        self._pending = self._executor.submit(lambda: self._save(checkpoint))

    def _save(self, checkpoint: Checkpoint) -> SavedCheckpoint | None:
        position, data = checkpoint.state.position, None
        if self._copy is not None:
            data = checkpoint_bytes(checkpoint)
            self._copy.write(checkpoint_name(position), data)
        if self._folder is None:
            return None
        path = save_checkpoint(self._folder, checkpoint, keep=self._keep, data=data)
        return SavedCheckpoint(path, position)

    def wait(self) -> None:
        """Return when every checkpoint has been saved.

        Raises:
          OSError, JobError: one could not be saved.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            saved = pending.result()
            if saved is not None:
                self._saved.append(saved)

    def wait_shortly(self) -> None:
        """Wait a few seconds at most for the last checkpoint; an error of it is left alone."""
        if self._pending is not None:
            wait([self._pending], timeout=_SHORT_WAIT_S)

    def take_saved(self) -> list[SavedCheckpoint]:
        """Return the checkpoints that have become whole since the last call; does not wait.

        Raises:
          OSError, JobError: one could not be saved.
        """
        if self._pending is not None and self._pending.done():
            self.wait()
        saved, self._saved = self._saved, []
        return saved
