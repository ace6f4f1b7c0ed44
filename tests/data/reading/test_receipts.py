"""When a receipt is exact, and how it reads."""

import pytest

from tenfold.data.format.manifest import ShardInfo, Split, shard_name
from tenfold.data.reading.receipts import make_receipt

SPLIT = Split(
    "train",
    tuple(ShardInfo(shard_name("train", i, 2), 50, 1000, 0, 2**63 + i) for i in range(2)),
)

# records, left out, difference of the fingerprint: exact?
TABLE = [
    (100, 0, 0, True),
    (100, 0, 1, False),  # as many records, but not the same ones
    (99, 0, 0, False),
    (101, 0, 0, False),
    (96, 4, 0, True),
    (96, 4, 12345, False),  # leftover records are proven too
    (97, 4, 0, False),
]


@pytest.mark.parametrize(("records", "left_out", "difference", "exact"), TABLE)
def test_receipt_is_exact_only_if_sums_agree(
    records: int, left_out: int, difference: int, exact: bool
) -> None:
    receipt = make_receipt(
        SPLIT, records=records, fingerprint=SPLIT.fingerprint + difference, left_out=left_out
    )
    assert receipt.exact is exact
    assert receipt.to_json()["exact"] is exact
    assert ("not read exactly once" in receipt.sentence()) is not exact


def test_sentence_names_leftover_and_damaged_records() -> None:
    receipt = make_receipt(
        SPLIT,
        records=96,
        left_out=4,
        fingerprint=SPLIT.fingerprint,
        broken=["train-00000-of-00002.tfrecord record 7 at byte 140: damaged", "another"],
    )
    assert receipt.sentence() == (
        "96 of 100 records, each read once, 4 left over (too few for a batch; different ones each "
        "epoch); 2 damaged records skipped: train-00000-of-00002.tfrecord record 7 at byte 140: "
        "damaged, …"
    )


def test_sentence_counts_repeated_records() -> None:
    receipt = make_receipt(SPLIT, records=100, fingerprint=SPLIT.fingerprint, repeated=28)
    assert receipt.exact
    assert receipt.sentence() == (
        "100 of 100 records, each read once, and 28 again to fill the last batches"
    )
