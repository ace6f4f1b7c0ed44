"""What the chief writes down of a run: metrics.jsonl and TensorBoard summaries."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

METRICS_NAME: Final = "metrics.jsonl"


class RunLog:
    """Appends to a run directory's metrics.jsonl and TensorBoard files.

    A line has `kind` (``step`` or ``epoch``), `epoch` (from 0), `step` (steps done since the
    run began), `loss`, `metrics`, `records_per_s`, `wait_share`; an epoch's has the receipts.
    """

    def __init__(self, run_dir: str, *, steps_done: int) -> None:
        folder = Path(run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS_NAME
        drop_lines_after(self._path, steps_done)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = tf.summary.create_file_writer(str(folder / "tensorboard"))

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

    def close(self) -> None:
        """Flushes and closes the files."""
        self._file.close()
        self._board.close()

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
    beside = path.with_suffix(".tmp")
    beside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(beside, path)


def _whole_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
