"""From an error of a reading pipeline to its cause: a failed fetch, or a record by its name.

TensorFlow turns an exception of a Python call in a pipeline into an error of its own, whose
message holds the exception's class and message before the traceback. The cause is read from
there, so it belongs to its pipeline however many pipelines a process has.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

import tensorflow as tf

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.tfrecord import fingerprint64
from tenfold.data.integrity.salvage import find_damaged_record, find_record
from tenfold.data.reading.batches import open_reader, raw_records
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_options import Position
from tenfold.data.reading.records.shard_index import UnreadableRecord

# Errors of damaged frames, of shards that end early, and of records that cannot be parsed.
READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.OutOfRangeError,
)

_CAUSES: Final[dict[str, type[JobError | UserError]]] = {
    kind.__name__: kind for kind in (JobError, UserError, UnreadableRecord)
}
_CAUSE: Final = re.compile(
    rf"\b({'|'.join(_CAUSES)}): (.*?)\n+Traceback \(most recent call last\)", re.DOTALL
)


def cause_of(error: BaseException | None) -> JobError | UserError | None:
    """Return the error that a Python call of a pipeline raised; None if it was none of ours."""
    match = _CAUSE.search(str(error)) if isinstance(error, tf.errors.OpError) else None
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
    except tf.errors.OpError as error:
        cause = cause_of(error)
        if cause is None:
            raise
        raise cause from None


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
    shards = config.shards(drop_remainder=True).shards
    damaged = find_damaged_record(config.folder, [s for s in shards if s.name not in config.moved])
    if damaged is not None:
        return JobError(
            f"{config.folder}/{damaged}; run 'tenfold verify' to see all, then write the shard "
            "again, or leave such records out with --on_bad_record=skip"
        )
    found = _find_undecodable(config, start, steps)
    if found is None:
        return None
    payload, problem = found
    location = find_record(config.folder, shards, fingerprint64(payload))
    assert location is not None, "the record was read from these shards"
    shard, index, offset = location
    return JobError(
        f"{config.folder}/{shard} record {index} at byte {offset:,} is as it was written, but "
        f"cannot be decoded: {problem}; leave it out when writing (tenfold write "
        "--on_bad_record=skip)"
    )


def _find_undecodable(config: ReadConfig, start: Position, steps: int) -> tuple[bytes, str] | None:
    """Return the first record of some steps that cannot be parsed or decoded, and why."""
    shards = config.shards(drop_remainder=True).shards
    reader = open_reader(config, shards, plan=iter(()), by_id=False)
    count = steps * config.replica_batch * config.place.replicas
    for record in islice(raw_records(config, start=start).as_numpy_iterator(), count):
        try:
            reader.read(tf.constant([record]), None)
        except (tf.errors.OpError, ValueError) as error:
            return record, _reason(getattr(error, "message", str(error)))
    return None


def _reason(message: str) -> str:
    """Return the one line of an error message that says why decoding failed."""
    lines = [line for line in message.splitlines() if line.strip()]
    decoding = [line for line in lines if "cannot be decoded" in line]
    line = decoding[-1] if decoding else (lines or [message])[0]
    return line.rsplit("cannot be decoded: ", 1)[-1].removeprefix("{{").strip()
