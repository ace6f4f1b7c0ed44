"""Data sets of Hugging Face on a local disk, ``hf:FOLDER_OR_NAME[:SPLIT]``, without their library.

`Dataset.save_to_disk` writes Arrow streams beside a ``state.json``, `DatasetDict.save_to_disk` a
folder of these for each split; a download from the hub has Parquet files named by split. Caches
of `map` and `filter` beside them are no data. A name is that of a data set in the hub's local
cache (huggingface.co/docs/huggingface_hub/guides/manage-cache).
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.planning.splits.split_names import standard_split_name
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.tables.columns.table_images import LocalImages
from tenfold.data.sources.tables.open_table import folder_parts, scan_files
from tenfold.data.sources.tables.table_files import split_of, table_files

if TYPE_CHECKING:
    from tenfold.data.sources.tables.table_source import TableSource

PREFIX: Final = "hf:"
_REVISION: Final = re.compile(r"[0-9a-f]{40}")


def open_huggingface(spec: str, scratch: Path, options: SourceOptions) -> "TableSource":
    """Scan ``hf:FOLDER_OR_NAME[:SPLIT]``; without a split, the data set keeps its own splits.

    Raises:
      UserError: there is no such folder, data set or split, or as `scan_table`.
    """
    name, _, split = spec.removeprefix(PREFIX).partition(":")
    path = os.path.expanduser(name)
    if not os.path.isdir(path):
        path = _downloaded(name) or ""
    if not path:
        raise UserError(
            f"source '{spec}': there is no folder '{name}', and no data set of this name in "
            f"{_hub_cache()}: 'hf download {name} --repo-type=dataset' fetches one from the hub"
        )
    names = [n for n in folder_parts(path) if not os.path.basename(n).startswith("cache-")]
    if not names:
        raise UserError(f"source '{spec}': folder '{path}' has no Arrow or Parquet files")
    if split:
        names = _of_split(spec, names, split)
    files = table_files(spec, path, names)
    return scan_files(spec, files, scratch, options, LocalImages(os.path.abspath(path)))


def _hub_cache() -> Path:
    """Return the folder in which Hugging Face's libraries keep downloads, as they find it."""
    environ = os.environ
    if found := environ.get("HF_HUB_CACHE"):
        return Path(found).expanduser()
    default = Path(environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(environ.get("HF_HOME", default)).expanduser() / "hub"


def _downloaded(name: str) -> str | None:
    """Return the folder of a data set in the hub's cache: what its branch main was last."""
    cached = _hub_cache() / f"datasets--{name.replace('/', '--')}"
    try:
        revision = (cached / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    folder = cached / "snapshots" / revision
    is_name = bool(_REVISION.fullmatch(revision))
    return str(folder) if is_name and folder.is_dir() else None


def _of_split(spec: str, names: list[str], split: str) -> list[str]:
    found = {name: split_of(name) or name.split("/")[0].split("-")[0] for name in names}
    wanted = standard_split_name(split)
    chosen = [name for name, known in found.items() if known in (split, wanted)]
    if not chosen:
        hint = did_you_mean(split, dict.fromkeys(found.values()))
        raise UserError(f"source '{spec}': there is no split '{split}': {hint}")
    return chosen
