"""What the chief writes down of a run: metrics.jsonl, TensorBoard summaries, the saved model.

On remote storage a checkpoint must not be there before the lines of metrics.jsonl that lead to
it: the run that goes on from it would lack them. So `flush` comes before a checkpoint.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import tensorflow as tf

from tenfold.data.storage.local_folder import LocalFolder, replace_file
from tenfold.data.storage.mirror import CHIEF_FOLDER, Mirror, make_empty_folder, work_folder
from tenfold.data.storage.open_folder import open_folder

METRICS_NAME: Final = "metrics.jsonl"
BOARD_FOLDER: Final = "tensorboard"
MODEL_NAME: Final = "model.keras"


class RunLog:
    """Appends to a run directory's metrics.jsonl and TensorBoard files, and saves the model.

    A line has `kind` (``step`` or ``epoch``), `epoch` (from 0), `step` (steps done since the
    run began), `loss`, `metrics`, `records_per_s`, `wait_share`; an epoch's has the receipts.
    """

    def __init__(self, run_dir: str, *, steps_done: int) -> None:
        self._folder = open_folder(run_dir)
        self._mirror: Mirror | None = None
        if isinstance(self._folder, LocalFolder):
            self.path = Path(self._folder.path)
            self.path.mkdir(parents=True, exist_ok=True)
        else:
            self.path = make_empty_folder(work_folder(run_dir) / CHIEF_FOLDER)
            patterns = (METRICS_NAME, f"{BOARD_FOLDER}/*")
            self._mirror = Mirror(self.path, self._folder, patterns=patterns)
            self._mirror.fetch(METRICS_NAME)
        metrics = self.path / METRICS_NAME
        drop_lines_after(metrics, steps_done)
        self._file = metrics.open("a", encoding="utf-8")
        self._board = tf.summary.create_file_writer(str(self.path / BOARD_FOLDER))
        if self._mirror:
            self._mirror.start()

    def steps(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Writes one line per step; TensorBoard gets the last."""
        self._write([{"kind": "step", **line} for line in lines])
        self._summarise("step", lines[-1])

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Writes an epoch's line, and sees to it that it is on disk."""
        self._write([{"kind": "epoch", **line}])
        os.fsync(self._file.fileno())
        self._summarise("epoch", line)
        self._board.flush()

    def flush(self) -> None:
        """Sees to it that what was written until now is in the run directory.

        Raises:
          OSError, JobError: remote storage does not take it.
        """
        if self._mirror:
            self._board.flush()
            self._mirror.flush()

    def finish(self, model: keras.Model) -> None:
        """Closes the files and saves the model: last, and whole or not at all.

        Raises:
          OSError, JobError: remote storage does not take it.
        """
        self._file.close()
        self._board.close()
        if self._mirror:
            self._mirror.close()
        beside = self.path / f".partial-{MODEL_NAME}"
        model.save(beside)
        self._folder.publish(beside, MODEL_NAME)
        if self._mirror:
            shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self._file.write("".join(json.dumps(line) + "\n" for line in lines))
        self._file.flush()

    def _summarise(self, prefix: str, line: Mapping[str, Any]) -> None:
        values = {"loss": line["loss"], "records_per_s": line["records_per_s"], **line["metrics"]}
        with self._board.as_default(step=line["step"]):
            for name, value in values.items():
                _write_scalar(f"{prefix}/{name}", value)


def _write_scalar(tag: str, value: float) -> None:
    """Writes what `tf.summary.scalar` writes, which needs the tensorboard package to do it."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(tag, tf.constant(value, tf.float32), metadata=metadata)


def drop_lines_after(path: Path, steps_done: int) -> None:
    """Removes what a run wrote after the checkpoint from which it now goes on.

    A line cut off by a kill goes too.
    """
    if not path.exists():
        return
    kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= steps_done]
    replace_file(path, "".join(line + "\n" for line in kept).encode())


def _whole_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
