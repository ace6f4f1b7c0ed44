"""One name for each usual split, whatever its spelling: ``val`` is ``validation``. Pure."""

from collections.abc import Sequence
from typing import Final

from tenfold.data.errors import UserError

_SPELLINGS: Final = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
_STANDARD: Final = {spelling: name for name, given in _SPELLINGS.items() for spelling in given}


def standard_split_name(name: str) -> str:
    """Return ``train``, ``validation`` or ``test`` for a usual spelling, else `name` itself."""
    return usual_split(name) or name


def usual_split(name: str) -> str:
    """Return ``train``, ``validation`` or ``test`` for a usual spelling in any case, else ""."""
    return _STANDARD.get(name.lower(), "")


def split_folders(root: str, folders: Sequence[str]) -> dict[str, str]:
    """Return the folder of each split if the folders of a tree are splits, else {}.

    Args:
      root: the tree's path or URL, for errors.
      folders: the names of the folders in it.

    Raises:
      UserError: two folders are one split, or some folders are splits and others are not.
    """
    found = {name: usual_split(name) for name in sorted(folders)}
    splits = sorted({split for split in found.values() if split})
    others = [name for name, split in found.items() if not split]
    if not splits or (others and len(splits) == 1):  # a class may be called train
        return {}
    named = {split: name for name, split in found.items() if split}
    twice = next((name for name, split in found.items() if split and named[split] != name), None)
    if not others and twice is None:
        return {split: named[split] for split in ("train", "validation", "test") if split in named}
    shown = ",".join(f"{split}={root}/{name}" for split, name in named.items())
    problem = (
        f"the folders '{twice}' and '{named[found[twice]]}' are both split '{found[twice]}'"
        if twice is not None
        else f"the folders {', '.join(sorted(named.values()))} are splits, '{others[0]}' is none"
    )
    raise UserError(f"source '{root}': {problem}: name the source of each, --split={shown}")
