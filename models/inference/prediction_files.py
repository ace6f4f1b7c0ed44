"""Files of predictions: one for each shard, published whole, and a list of all of them.

A folder of predictions holds ``_begun.json``, which says what is predicted, then
``SPLIT-00007-of-00040.parquet`` (or ``.tfrecord``) for each shard, and at last
``_predictions.json``. Readers of Parquet folders skip names that begin with an underscore. Each
row has the shard's name, the index of the record in the shard, the features that are kept, and the
model's outputs.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Protocol

import numpy as np

from tenfold.data.errors import UserError
from tenfold.data.format.example import encode_example
from tenfold.data.format.manifest import ShardInfo
from tenfold.data.format.tfrecord import frame
from tenfold.data.storage.folder import Conflict, Folder
from tenfold.models.inference.inference_config import PARQUET

BEGUN_FILE: Final = "_begun.json"
LIST_FILE: Final = "_predictions.json"

_ROW_GROUP: Final = 1 << 15

# Columns by name: arrays [n, …], or lists of n byte strings.
Columns = Mapping[str, Any]


@dataclass(frozen=True)
class PredictionJob:
    """What must be equal where a job goes on with another one's files.

    Attributes:
      model: the path of the model's file.
      model_digest: a hash of its content.
      shards: the folder of the shards.
      shards_digest: a hash of the shards' content.
      split: the name of the split.
      image_size: (height, width) of the images, None where there are none.
      columns: features that are kept, and their columns.
      format: one of OUTPUT_FORMATS.
    """

    model: str
    model_digest: str
    shards: str
    shards_digest: str
    split: str
    image_size: tuple[int, int] | None
    columns: Mapping[str, str]
    format: str


class PredictionFolder:
    """The folder that the workers of one job write their predictions to.

    Args:
      folder: the folder.
      job: what is predicted.
      shards: all shards of the split.

    Raises:
      UserError: the folder holds predictions of another job.
    """

    def __init__(self, folder: Folder, job: PredictionJob, shards: Sequence[ShardInfo]) -> None:
        self._folder = folder
        self._job = job
        self._shards = tuple(shard for shard in shards if shard.records)
        own = json.dumps(asdict(job), indent=1, ensure_ascii=False).encode() + b"\n"
        try:
            folder.write(BEGUN_FILE, own, replaces="")
        except Conflict:  # by another worker of this job, an earlier start, or another job
            if folder.read(BEGUN_FILE) != own:
                raise UserError(
                    f"--output={folder.path} holds predictions of another model, split or "
                    "columns: give a new folder"
                ) from None

    def missing(self) -> list[ShardInfo]:
        """Return the shards without a file of predictions, in the order of the manifest."""
        names = set(self._folder.sizes())
        return [shard for shard in self._shards if self.file_of(shard) not in names]

    def file_of(self, shard: ShardInfo) -> str:
        """Return the name of a shard's file of predictions."""
        return f"{shard.name.removesuffix('.tfrecord')}.{self._job.format}"

    def open_file(self, shard: ShardInfo) -> "PredictionFile":
        """Return a new file of predictions for a ``with`` block, which publishes it."""
        return PredictionFile(self._folder, self.file_of(shard), self._job.format)

    def finish(self) -> bool:
        """Write the list of files if all exist; return whether they do.

        Each worker calls this function after its last file. Those that find all files write the
        same list.
        """
        if self.missing():
            return False
        document = {
            **asdict(self._job),
            "records": sum(shard.records for shard in self._shards),
            "files": [
                {"name": self.file_of(shard), "records": shard.records} for shard in self._shards
            ],
        }
        data = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
        self._folder.write(LIST_FILE, data)
        return True


class _Writer(Protocol):
    def write(self, columns: Columns, count: int) -> None: ...

    def close(self) -> None: ...


class PredictionFile:
    """One file of predictions; published at the end of the ``with`` block unless that raises.

    Args:
      folder: where it is published.
      name: its name there.
      output_format: one of OUTPUT_FORMATS.
    """

    def __init__(self, folder: Folder, name: str, output_format: str) -> None:
        self._folder = folder
        self._name = name
        self._scratch = tempfile.TemporaryDirectory(dir=folder.scratch())
        self._path = Path(self._scratch.name, name)
        opened = _ParquetWriter if output_format == PARQUET else _TFRecordWriter
        self._writer: _Writer = opened(self._path)

    def write(self, columns: Columns, count: int) -> None:
        """Add `count` rows."""
        self._writer.write(columns, count)

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._scratch:
            self._writer.close()
            if kind is None:
                self._folder.publish(self._path, self._name)


class _ParquetWriter:
    """Writes row groups of about _ROW_GROUP rows, however few rows a batch has."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._waiting: list[Any] = []
        self._rows = 0

    def write(self, columns: Columns, count: int) -> None:
        import pyarrow as pa

        self._waiting.append(pa.table({name: _arrow(each) for name, each in columns.items()}))
        self._rows += count
        if self._rows >= _ROW_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables(self._waiting)
        if self._file is None:
            self._file = pq.ParquetWriter(self._path, table.schema)
        self._file.write_table(table)
        self._waiting, self._rows = [], 0

    def close(self) -> None:
        if self._waiting:
            self._write_group()
        if self._file is not None:
            self._file.close()


class _TFRecordWriter:
    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115  closed by `close`

    def write(self, columns: Columns, count: int) -> None:
        for index in range(count):
            row = {name: values[index] for name, values in columns.items()}
            self._file.write(frame(encode_example(row)))

    def close(self) -> None:
        self._file.close()


def _arrow(values: Any) -> Any:
    """Return a column: numbers as they are, arrays as lists of fixed size."""
    import pyarrow as pa

    if not isinstance(values, np.ndarray) or values.ndim == 1:
        return pa.array(values)
    array = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array
