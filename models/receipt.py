"""Receipts: the proof of which records were read, from counts and fingerprint sums alone."""

from dataclasses import dataclass
from typing import Any

from tenfold.data.manifest import Split


@dataclass(frozen=True)
class Receipt:
    """What all workers together read of a split in one pass over it.

    `expected` is the manifest's number of records, `left_out` how many the last incomplete
    batch would have held. `fingerprint` is the sum modulo 2**64 over the records read; it is
    compared with the manifest's where nothing is left out.
    """

    records: int
    expected: int
    left_out: int
    fingerprint: int
    expected_fingerprint: int

    @property
    def exact(self) -> bool:
        """Whether each record was read exactly once, but for those that were left out."""
        if self.records + self.left_out != self.expected:
            return False
        return self.left_out > 0 or self.fingerprint == self.expected_fingerprint

    def sentence(self) -> str:
        """Returns the receipt as one reads it."""
        of = f"{self.records:,} of {self.expected:,} records"
        if not self.exact:
            return f"{of}: NOT each once, the shards or the reading are at fault"
        if self.left_out:
            return f"{of}, {self.left_out:,} left out (fewer than a batch, others each epoch)"
        return f"{of}, each read once"

    def to_json(self) -> dict[str, Any]:
        """Returns the receipt as metrics.jsonl holds it."""
        return {
            "records": self.records,
            "expected": self.expected,
            "left_out": self.left_out,
            "fingerprint": f"{self.fingerprint:016x}",
            "expected_fingerprint": f"{self.expected_fingerprint:016x}",
            "exact": self.exact,
        }


def make_receipt(split: Split, *, records: int, fingerprint: int, left_out: int = 0) -> Receipt:
    """Returns the receipt for `records` read of `split`, `left_out` knowingly not."""
    return Receipt(
        records=records,
        expected=split.num_records,
        left_out=left_out,
        fingerprint=fingerprint % 2**64,
        expected_fingerprint=split.fingerprint,
    )
