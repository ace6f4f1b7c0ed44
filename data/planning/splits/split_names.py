"""One name for each usual split, whatever its spelling: ``val`` is ``validation``. Pure."""

from typing import Final

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
