"""The data sets of a mixture, and how many records of a batch each of them gives. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import UserError

# The share follows the last colon, so that a URL may have colons.
_MEMBER: Final = re.compile(r"(.+):([0-9]*\.?[0-9]+)")


@dataclass(frozen=True)
class DataShare:
    """A folder or URL of shards, and its share of each batch, as a weight among all shares."""

    folder: str
    share: float = 1.0

    def __post_init__(self) -> None:
        if not self.share > 0:
            raise UserError(
                f"shards '{self.folder}' have the share {self.share:g}: it must be above 0"
            )


def parse_data_shares(text: str) -> tuple[DataShare, ...]:
    """Return the data sets that --shards names: ``PATH``, or ``PATH:SHARE,PATH:SHARE``.

    A text without a comma is one folder, whatever its name.

    Raises:
      UserError: only some have a share, a share is 0, or a folder is named twice.
    """
    members = [_MEMBER.fullmatch(part.strip()) for part in text.split(",")]
    if len(members) == 1 or not any(members):
        return (DataShare(text),)
    missing = [part for part, found in zip(text.split(","), members, strict=True) if not found]
    if missing:
        raise UserError(
            f"--shards={text}: '{missing[0]}' has no share: write each as PATH:SHARE, as in "
            "a:0.7,b:0.3"
        )
    found = tuple(DataShare(match[1], float(match[2])) for match in members if match)
    folders = [member.folder for member in found]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"--shards={text}: '{folder}' is named twice")
    return found


def check_one_folder(text: str, what: str) -> None:
    """Check that `text` names one folder of shards.

    Args:
      text: what `parse_data_shares` takes.
      what: what reads them, for the message.

    Raises:
      UserError: it names a mixture.
    """
    if len(parse_data_shares(text)) > 1:
        raise UserError(f"--shards={text} is a mixture, and {what} reads one data set: name one")


def apportion(total: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Return whole numbers with the sum `total`, in proportion to `shares`.

    By largest remainders (Hamilton's method); of equal ones the first.
    """
    exact = [total * share / sum(shares) for share in shares]
    counts = [int(value) for value in exact]
    order = sorted(range(len(exact)), key=lambda index: counts[index] - exact[index])
    for index in order[: total - sum(counts)]:
        counts[index] += 1
    return tuple(counts)
