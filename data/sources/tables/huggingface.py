"""Data sets of Hugging Face on a local disk, ``hf:FOLDER[:SPLIT]``, read without their library.

`Dataset.save_to_disk` writes Arrow streams beside a ``state.json``, `DatasetDict.save_to_disk` a
folder of these for each split; a download from the hub has Parquet files named by split. Caches
of `map` and `filter` beside them are no data.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.planning.split_names import standard_split_name
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.tables.open_table import folder_parts, scan_files
from tenfold.data.sources.tables.table_files import split_of, table_files
from tenfold.data.sources.tables.table_images import LocalImages

if TYPE_CHECKING:
    from tenfold.data.sources.tables.table_source import TableSource

PREFIX: Final = "hf:"


def open_huggingface(spec: str, scratch: Path, options: SourceOptions) -> "TableSource":
    """Scan ``hf:FOLDER[:SPLIT]``; without a split, the data set keeps its own splits.

    Raises:
      UserError: there is no such folder or split, or as `scan_table`.
    """
    path, _, split = spec.removeprefix(PREFIX).partition(":")
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        raise UserError(
            f"source '{spec}': there is no folder '{path}': give a folder of save_to_disk, or one "
            "with a data set of the hub, as 'hf download NAME --repo-type=dataset "
            "--local-dir=FOLDER' makes it"
        )
    names = [n for n in folder_parts(path) if not os.path.basename(n).startswith("cache-")]
    if not names:
        raise UserError(f"source '{spec}': folder '{path}' has no Arrow or Parquet files")
    if split:
        names = _of_split(spec, names, split)
    files = table_files(spec, path, names)
    return scan_files(spec, files, scratch, options, LocalImages(os.path.abspath(path)))


def _of_split(spec: str, names: list[str], split: str) -> list[str]:
    found = {name: split_of(name) or name.split("/")[0].split("-")[0] for name in names}
    wanted = standard_split_name(split)
    chosen = [name for name, known in found.items() if known in (split, wanted)]
    if not chosen:
        hint = did_you_mean(split, dict.fromkeys(found.values()))
        raise UserError(f"source '{spec}': there is no split '{split}': {hint}")
    return chosen
