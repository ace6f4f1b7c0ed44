"""The chief's files of a run: metrics.jsonl, TensorBoard summaries, the saved model.

On remote storage the lines of metrics.jsonl must be uploaded before the checkpoint that follows
them: a run that resumes from the checkpoint would otherwise lack them. So the trainer calls
`flush` before each checkpoint.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import keras
import tensorflow as tf

from tenfold.data.errors import naming_file
from tenfold.data.storage.local_folder import LocalFolder, open_appending, replace_file
from tenfold.data.storage.mirror import CHIEF_FOLDER, Mirror, make_empty_folder, work_folder
from tenfold.data.storage.open_folder import open_folder
from tenfold.models.metrics_line import (
    EpochMetrics,
    MetricsLine,
    StepMetrics,
    TrainingLine,
    ValidationMetrics,
    decode_metrics,
    encode_metrics,
)
from tenfold.models.output_files import METRICS_FILE, MODEL_FILE, TENSORBOARD_FOLDER

_PARTIAL: Final = ".partial-"


class RunLog:
    """Appends to metrics.jsonl and TensorBoard files, and saves the model.

    On remote storage it writes to a local folder, `path`, which a mirror uploads on a thread of
    its own.
    """

    def __init__(self, run_dir: str, *, steps_done: int, goes_on: bool = True) -> None:
        """Open the files.

        Args:
          run_dir: the run directory.
          steps_done: the steps of the checkpoint from which the run continues; later lines go.
          goes_on: whether steps follow; then the line of an epoch that was not finished goes, too.
        """
        self._folder = open_folder(run_dir)
        self._mirror: Mirror | None = None
        if isinstance(self._folder, LocalFolder):
            self.path = Path(self._folder.path)
            self.path.mkdir(parents=True, exist_ok=True)
        else:
            self.path = make_empty_folder(work_folder(run_dir) / CHIEF_FOLDER)
            patterns = (METRICS_FILE, f"{TENSORBOARD_FOLDER}/*")
            self._mirror = Mirror(self.path, self._folder, patterns=patterns)
            self._mirror.fetch(METRICS_FILE)
        metrics = self.path / METRICS_FILE
        drop_lines_after(metrics, steps_done, unfinished=goes_on)
        self._file = open_appending(metrics)
        self._board = tf.summary.create_file_writer(str(self.path / TENSORBOARD_FOLDER))
        if self._mirror:
            self._mirror.start()

    def steps(self, lines: Sequence[StepMetrics]) -> None:
        """Write one line per step, and the last to TensorBoard."""
        self._write(lines)
        self._summarise("step", lines[-1])

    def epoch(self, line: EpochMetrics) -> None:
        """Write an epoch's line and sync it to disk."""
        self._write([line])
        with naming_file(self._file.name):
            os.fsync(self._file.fileno())
        self._summarise("epoch", line)
        self._board.flush()

    def validation(self, line: ValidationMetrics) -> None:
        """Write the line of an evaluation within an epoch."""
        self._write([line])
        self._scalars("validation", line.step, line.metrics)

    def flush(self) -> None:
        """Upload everything written so far to a remote run directory; locally do nothing.

        Raises:
          OSError, JobError: the upload failed.
        """
        if self._mirror:
            self._board.flush()
            self._mirror.flush()

    def finish(self, model: keras.Model) -> None:
        """Close the files, then save the model atomically.

        Raises:
          OSError, JobError: the upload failed.
        """
        self._file.close()
        self._board.close()
        if self._mirror:
            self._mirror.close()
        self.save_model(model, MODEL_FILE)
        if self._mirror:
            shutil.rmtree(self.path, ignore_errors=True)

    def save_model(self, model: keras.Model, name: str) -> None:
        """Save the model as the file `name` of the run directory, whole or not at all.

        Raises:
          OSError, JobError: it could not be saved.
        """
        for left in self.path.glob(f"{_PARTIAL}*"):  # by a killed worker
            shutil.rmtree(left, ignore_errors=True)
        # Keras follows symbolic links: nobody else can put one into this folder.
        with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=self.path) as folder:
            beside = Path(folder, name)
            with naming_file(self.path / name):
                model.save(beside)
            self._folder.publish(beside, name)

    def _write(self, lines: Sequence[MetricsLine]) -> None:
        with naming_file(self._file.name):
            self._file.write("".join(map(encode_metrics, lines)))
            self._file.flush()

    def _summarise(self, prefix: str, line: TrainingLine) -> None:
        values = {"loss": line.loss, "records_per_s": line.records_per_s, **line.metrics}
        self._scalars(prefix, line.step, values)

    def _scalars(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        with self._board.as_default(step=step):
            for name, value in values.items():
                _write_scalar(f"{prefix}/{name}", value)


def _write_scalar(tag: str, value: float) -> None:
    """Write the same record as `tf.summary.scalar`, which would need the tensorboard package."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(tag, tf.constant(value, tf.float32), metadata=metadata)


def drop_lines_after(path: Path, steps_done: int, *, unfinished: bool = True) -> None:
    """Remove the lines of steps after the checkpoint from which the run continues.

    Damaged lines go too, such as a last line that a kill cut off; and, with `unfinished`, that of
    an epoch within which the run had ended.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = "".join(line for line in lines if _is_kept(line, steps_done, unfinished))
    replace_file(path, kept.encode())


def _is_kept(text: str, steps_done: int, unfinished: bool) -> bool:
    with contextlib.suppress(ValueError):
        line = decode_metrics(text)
        if unfinished and isinstance(line, EpochMetrics) and line.receipt.of_epoch:
            return False
        return text.endswith("\n") and line.step <= steps_done
    return False
