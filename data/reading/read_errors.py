"""Which record it was: from an error of the reading pipeline to shard, record and offset."""

from itertools import islice

import tensorflow as tf

from tenfold.data.errors import JobError
from tenfold.data.format.tfrecord import fingerprint64
from tenfold.data.integrity.salvage import find_damaged_record, find_record
from tenfold.data.reading.batches import raw_records
from tenfold.data.reading.graph_records import batch_parser
from tenfold.data.reading.order import Position
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.storage.prefetch import prefetch_failure

# What reading and decoding raise: damaged frames, shards that end early, what cannot be parsed.
READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.OutOfRangeError,
)


def explain_read_error(config: ReadConfig, *, start: Position, steps: int) -> JobError | None:
    """Returns the error that names the broken record, or None where reading is not at fault.

    Looks at the checksums of the worker's shards, then at what the `steps` steps from `start`
    on read.
    """
    if prefetch_failure() is not None:
        return None
    shards = config.shards(drop_remainder=True).shards
    bad = find_damaged_record(config.folder, [s for s in shards if s.name not in config.moved])
    if bad is not None:
        return JobError(
            f"{config.folder}/{bad}; run 'tenfold verify' to see all, then write the shard "
            "again, or leave such records out with --on_bad_record=skip"
        )
    found = _undecodable(config, start, steps)
    if found is None:
        return None
    payload, problem = found
    place = find_record(config.folder, shards, fingerprint64(payload))
    assert place is not None, "the record was read from these shards"
    shard, index, offset = place
    return JobError(
        f"{config.folder}/{shard} record {index} at byte {offset:,} is as it was written, but "
        f"cannot be decoded: {problem}; leave it out when writing (tenfold write "
        "--on_bad_record=skip)"
    )


def _undecodable(config: ReadConfig, start: Position, steps: int) -> tuple[bytes, str] | None:
    """Returns the first record of some steps that cannot be parsed or decoded, and why."""
    parse = batch_parser(config.spec, config.decode())
    count = steps * config.replica_batch * config.replicas
    for record in islice(raw_records(config, start=start).as_numpy_iterator(), count):
        try:
            parse(tf.constant([record]), None)
        except (tf.errors.OpError, ValueError) as error:
            return record, _first_line(getattr(error, "message", str(error)))
    return None


def _first_line(message: str) -> str:
    lines = [line for line in message.splitlines() if line.strip()]
    useful = [line for line in lines if "cannot be decoded" in line]
    text = (useful or lines or [message])[-1 if useful else 0]
    return text.rsplit("cannot be decoded: ", 1)[-1].removeprefix("{{").strip()
