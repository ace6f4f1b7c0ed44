"""From an error of a reading pipeline to its cause: a failed fetch, or a record by its name.

TensorFlow turns an exception of a Python call in a pipeline into an error of its own, whose
message holds the exception's class and message before the traceback. The cause is read from
there, so it belongs to its pipeline however many pipelines a process has.

TensorFlow's own errors about records name no shard. Then the shards of the pipelines that the
process made last are searched for a record that cannot be read.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final

import tensorflow as tf

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import ShardInfo
from tenfold.data.format.tfrecord import FOOTER_BYTES, HEADER_BYTES, fingerprint64
from tenfold.data.integrity.salvage import find_damaged_record, find_record, scan_records
from tenfold.data.reading.batches import open_reader, raw_records, recent_configs
from tenfold.data.reading.feeding.feed import ROW_RULE
from tenfold.data.reading.mixing.mixture import Mixture
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_options import Position
from tenfold.data.reading.records.record_check import one_line, parse_problem
from tenfold.data.reading.records.record_reader import RecordReader
from tenfold.data.reading.records.shard_index import UnnamedRecord, UnreadableRecord
from tenfold.data.storage.open_folder import open_folder

# Errors of damaged frames, of shards that end early, and of records that cannot be parsed.
READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.OutOfRangeError,
    UnicodeDecodeError,  # TensorFlow's message quotes bytes of a record
)

_BATCH_RECORDS: Final = 64

_CAUSES: Final[dict[str, type[JobError | UserError]]] = {
    kind.__name__: kind for kind in (JobError, UserError, UnreadableRecord, UnnamedRecord)
}
_CAUSE: Final = re.compile(
    rf"\b({'|'.join(_CAUSES)}): (.*?)\n+Traceback \(most recent call last\)", re.DOTALL
)
# TensorFlow's message about a failed `tf.debugging.assert_equal`.
_WRONG_ROWS: Final = re.compile(
    rf"assertion failed: \[(map .+? {ROW_RULE})\].*?\[(\d+)\].*?\[(\d+)\]"
)


def cause_of(error: BaseException | None) -> JobError | UserError | None:
    """Return the error that a pipeline raised; None if it was none of ours."""
    if not isinstance(error, tf.errors.OpError):
        return None
    if rows := _WRONG_ROWS.search(str(error)):
        rule = rows[1].replace("\\'", "'")
        return UserError(f"{rule}: it has {rows[2]} for {rows[3]} records")
    match = _CAUSE.search(str(error))
    return _CAUSES[match[1]](match[2]) if match else None


@contextmanager
def explain_errors() -> Iterator[None]:
    """Raise the cause of a failed read in place of TensorFlow's error about it.

    For loops over `training_dataset` and `evaluation_dataset`, and for everything that reads
    them. Other errors pass unchanged.

    Raises:
      JobError: a shard cannot be fetched or a record cannot be read; the message names it.
      UserError: the shards' storage cannot be used.
    """
    try:
        yield
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        cause = cause_of(error)
        if _lacks_record(error, cause):
            cause = _search_recent() or cause
        if cause is None:
            raise
        raise cause from None


def _lacks_record(error: BaseException, cause: Exception | None) -> bool:
    """Whether the error came from reading, and names no record."""
    if cause is not None:
        return isinstance(cause, UnnamedRecord)
    if isinstance(error, UnicodeDecodeError):
        return b"IteratorGetNext" in error.object
    return isinstance(error, READ_ERRORS) and "IteratorGetNext" in str(error)


def _search_recent() -> JobError | None:
    """Return the error of the first unreadable record of the recent pipelines, or None."""
    for config in reversed(recent_configs):
        shards = config.evaluation_shards.shards  # the same as those of training
        found = _damaged_record(config, shards) or _search_unreadable(config, shards)
        if found is not None:
            return found
    return None


def _damaged_record(config: ReadConfig, shards: Sequence[ShardInfo]) -> JobError | None:
    """Return the error of the first record of `shards` that differs from the written one."""
    present = [shard for shard in shards if shard.name not in config.moved]
    damaged = find_damaged_record(config.folder, present)
    if damaged is None:
        return None
    return JobError(
        f"{config.folder}/{damaged}; run 'tenfold verify' to see all, then write the shard "
        "again, or leave such records out with --on_bad_record=skip"
    )


def _search_unreadable(config: ReadConfig, shards: Sequence[ShardInfo]) -> JobError | None:
    """Return the error of the first record of `shards` that cannot be parsed or decoded."""
    folder = open_folder(config.folder)
    reader = open_reader(config, shards, plan=iter(()), by_id=False)
    for shard in shards:
        data = folder.read(shard.name) or b""
        ranges = scan_records(data)[0]
        payloads = [data[begin + HEADER_BYTES : end - FOOTER_BYTES] for begin, end in ranges]
        for first in range(0, len(payloads), _BATCH_RECORDS):
            batch = payloads[first : first + _BATCH_RECORDS]
            if not _problem(config, reader, batch):
                continue
            for index, payload in enumerate(batch, first):
                if problem := _problem(config, reader, [payload]):
                    return _unreadable(config, (shard.name, index, ranges[index][0]), problem)
    return None


def _problem(config: ReadConfig, reader: RecordReader, payloads: Sequence[bytes]) -> str:
    """Return the reason why records cannot be parsed or decoded; "" if they can."""
    try:
        reader.read(tf.constant(payloads), None)
    except (tf.errors.OpError, ValueError) as error:
        reasons = (parse_problem(payload, config.spec.features) for payload in payloads)
        found = next(filter(None, reasons), "")
        return found or f"cannot be decoded: {one_line(getattr(error, 'message', str(error)))}"
    return ""


def _unreadable(config: ReadConfig, location: tuple[str, int, int], problem: str) -> JobError:
    shard, index, offset = location
    return JobError(
        f"{config.folder}/{shard} record {index} at byte {offset:,} is as it was written, but "
        f"{problem}; leave such records out: launch with --on_bad_record=skip, or write again "
        "with --check=decode --on_bad_record=skip"
    )


def explain_mixed_error(
    mixture: Mixture, *, start: Position, steps: int, error: BaseException | None = None
) -> JobError | None:
    """Return `explain_read_error` of the first data set that has a damaged record, or None."""
    positions = mixture.positions(start)
    for member, position in zip(mixture.members, positions, strict=True):
        found = explain_read_error(member, start=position, steps=steps, error=error)
        if found is not None:
            return found
    return None


def explain_read_error(
    config: ReadConfig, *, start: Position, steps: int, error: BaseException | None = None
) -> JobError | None:
    """Return the error that names the damaged record; None where reading is not at fault.

    Checks the checksums of the worker's shards, then decodes the records of some steps.

    Args:
      config: what the worker reads.
      start: where the steps begin.
      steps: number of steps that may have failed.
      error: the pipeline's error.
    """
    cause = cause_of(error)
    if cause is not None and not isinstance(cause, UnreadableRecord):
        return None  # a failed fetch
    shards = config.shards.shards
    damaged = _damaged_record(config, shards)
    if damaged is not None:
        return damaged
    found = _find_undecodable(config, start, steps)
    if found is None:
        return None
    payload, problem = found
    location = find_record(config.folder, shards, fingerprint64(payload))
    assert location is not None, "the record was read from these shards"
    return _unreadable(config, location, problem)


def _find_undecodable(config: ReadConfig, start: Position, steps: int) -> tuple[bytes, str] | None:
    """Return the first record of some steps that cannot be parsed or decoded, and why."""
    shards = config.shards.shards
    reader = open_reader(config, shards, plan=iter(()), by_id=False)
    # In a mixture the steps may go on into the next pass.
    numbers = (
        step % config.shards.steps_per_epoch for step in range(start.step, start.step + steps)
    )
    count = sum(map(config.shards.records, numbers))
    for record in islice(raw_records(config, start=start).as_numpy_iterator(), count):
        if problem := _problem(config, reader, [record]):
            return record, problem
    return None
