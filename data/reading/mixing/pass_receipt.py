"""The receipt of the passes over a further data set of a mixture."""

from tenfold.data.reading.mixing.mixture import Mixture
from tenfold.data.reading.mixing.pass_counts import PassCounts
from tenfold.data.reading.receipts import Receipt


def pass_receipt(mixture: Mixture, index: int, counts: PassCounts) -> Receipt:
    """Return the receipt of the passes over a further data set that ended in an epoch.

    Args:
      mixture: what is read.
      index: which of its data sets.
      counts: the counts over all workers.
    """
    member = mixture.members[index]
    split = member.manifest.split(member.split)
    records, left_out, fingerprint = counts.finished
    steps = member.shards.steps_per_epoch
    return Receipt(
        records=records,
        expected=counts.passes * split.num_records,
        left_out=left_out,
        fingerprint=fingerprint % 2**64,
        expected_fingerprint=counts.passes * split.fingerprint % 2**64,
        repeated=counts.passes * member.shards.repeated_records,
        data=mixture.names[index],
        passes=mixture.steps_per_epoch / steps,
    )
