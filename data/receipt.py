"""Receipts: the proof of which records were read, from counts and fingerprint sums alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.data.manifest import Split
from tenfold.data.sizes import plural
from tenfold.data.storage import read_manifest


@dataclass(frozen=True)
class Receipt:
    """What all workers together read of a split in one pass over it.

    `expected` is the manifest's number of records, `left_out` how many followed the last whole
    batch. `fingerprint` is the sum modulo 2**64 over the records read and those left out;
    `broken` names records that were lost before the run began and are not expected.
    """

    records: int
    expected: int
    left_out: int
    fingerprint: int
    expected_fingerprint: int
    broken: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether each record was read exactly once, or left out and not read."""
        whole = self.records + self.left_out == self.expected
        return whole and self.fingerprint == self.expected_fingerprint

    def sentence(self) -> str:
        """Returns the receipt as one reads it."""
        of = f"{self.records:,} of {self.expected:,} records"
        if not self.exact:
            return f"{of}: NOT each once, the shards or the reading are at fault"
        text = f"{of}, each read once"
        if self.left_out:
            text += f", {self.left_out:,} left out (less than a batch a lane, others each epoch)"
        if self.broken:
            text += f"; {plural(len(self.broken), 'broken one')} skipped: {self.broken[0]}"
            text += ", …" if len(self.broken) > 1 else ""
        return text

    def to_json(self) -> dict[str, Any]:
        """Returns the receipt as metrics.jsonl holds it."""
        return {
            "records": self.records,
            "expected": self.expected,
            "left_out": self.left_out,
            "fingerprint": f"{self.fingerprint:016x}",
            "expected_fingerprint": f"{self.expected_fingerprint:016x}",
            "exact": self.exact,
            "broken": list(self.broken),
        }


def make_receipt(
    split: Split,
    *,
    records: int,
    fingerprint: int,
    left_out: int = 0,
    broken: Sequence[str] = (),
) -> Receipt:
    """Returns the receipt for `records` read of `split`, `left_out` knowingly not.

    `fingerprint` is the sum over both; `broken` names what was lost of the split beforehand.
    """
    return Receipt(
        records=records,
        expected=split.num_records,
        left_out=left_out,
        fingerprint=fingerprint % 2**64,
        expected_fingerprint=split.fingerprint,
        broken=tuple(broken),
    )


def epoch_receipt(shards: str, seen: Iterable[int], *, split: str = "train") -> Receipt:
    """Returns the receipt of an epoch that a script of the user's own has read.

    `seen` is the sum, over the epoch's elements on all replicas of all workers, of what
    ``worker_dataset(..., receipt=True)`` gives last: records, records left out, and
    fingerprints modulo 2**64.

    Raises:
      UserError: the shards or the split do not exist.
    """
    records, left_out, fingerprint = map(int, seen)
    return make_receipt(
        read_manifest(shards).split(split),
        records=records,
        fingerprint=fingerprint,
        left_out=left_out,
    )
