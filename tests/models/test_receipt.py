import pytest

from tenfold.data.manifest import ShardInfo, Split, shard_name
from tenfold.models.receipt import make_receipt

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
    (96, 4, 12345, True),  # which four were left out is not known
    (97, 4, 0, False),
]


@pytest.mark.parametrize(("records", "left_out", "difference", "exact"), TABLE)
def test_exact(records: int, left_out: int, difference: int, exact: bool) -> None:
    receipt = make_receipt(
        SPLIT, records=records, fingerprint=SPLIT.fingerprint + difference, left_out=left_out
    )
    assert receipt.exact is exact
    assert receipt.to_json()["exact"] is exact
    assert ("NOT" in receipt.sentence()) is not exact
