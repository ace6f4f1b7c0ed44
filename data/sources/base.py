"""What a source of examples is: known in number, read by index, and picklable.

A source is opened by scanning it once; what the scan finds lies in small files of a scratch
folder (`tenfold.data.format.row_file`), so that the processes that write share it.
"""

from dataclasses import dataclass
from typing import Protocol

from tenfold.data.errors import JobError
from tenfold.data.format.example import Features
from tenfold.data.format.schema import Schema
from tenfold.data.planning.layout import SourceStats


class UnusableRecord(ValueError):
    """One record cannot be used; the message says why, without the record's name."""


class SourceChanged(JobError):
    """The source is no longer what was scanned."""


@dataclass(frozen=True)
class Encoded:
    """One record, ready to be framed: the serialized Example, what it is made of, its class.

    `label` is the value of the int64 scalar ``label``, None where there is none.
    """

    payload: bytes
    schema: Schema
    label: int | None = None


class Source(Protocol):
    """A scanned source. `stats` counts what its records take in shards, unless transformed."""

    stats: SourceStats
    notes: tuple[str, ...]

    def encoded(self, index: int) -> Encoded:
        """Returns example `index` as it is.

        Raises:
          UnusableRecord: it is broken.
          SourceChanged: it is not what was scanned.
        """

    def features(self, index: int) -> Features:
        """Returns example `index` as values, for transforms; raises as `encoded`."""

    def name(self, index: int) -> str:
        """Returns what to call example `index` in messages: a path, a row."""
