"""The splits of a source of several files, by the names of the files.

``train-00000-of-00010.tfrecord``, ``mnist-test.tfrecord-00000-of-00001`` and
``imagenet-val-000.tar`` name their splits.
"""

import os
import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from tenfold.data.format.manifest import MANIFEST_NAME, parse_shard_name
from tenfold.data.format.row_file import RowFile
from tenfold.data.planning.splits.own_splits import OwnSplit
from tenfold.data.planning.splits.split_names import usual_split


def own_splits(
    files: Sequence[str], rows: RowFile, *, splits: Sequence[str] = ()
) -> tuple[OwnSplit, ...]:
    """Return the splits of the records of `files`; () if the files do not name several.

    Args:
      files: the paths of the files.
      rows: the records, file by file; the first entry of a row is the number of its file.
      splits: the split of each file, if it is known; by default found in the names.
    """
    of_files = list(splits) or _named_splits(files)
    if len(set(of_files)) < 2:
        return ()
    numbers = range(len(of_files) + 1)
    firsts = [bisect_left(rows, number, key=lambda row: row[0]) for number in numbers]
    sizes = (end - first for first, end in pairwise(firsts))
    return tuple(OwnSplit(name, size) for name, size in zip(of_files, sizes, strict=True))


def _named_splits(files: Sequence[str]) -> list[str]:
    """Return the split that each file names; [] if one does not."""
    shards = [parse_shard_name(os.path.basename(file)) for file in files]
    if os.path.exists(os.path.join(os.path.dirname(files[0]), MANIFEST_NAME)):
        written = [shard[0] for shard in shards if shard]
        return written if len(written) == len(files) else []
    found = [_named_split(os.path.basename(file)) for file in files]
    return found if all(found) else []


def _named_split(name: str) -> str:
    """Return the one usual split among the words of a file's name, else ""."""
    words = {usual_split(word) for word in re.split(r"[-_.]", name)} - {""}
    return words.pop() if len(words) == 1 else ""
