"""Lists of hosts, as ``--hosts=a,b,c`` or as a host file. Pure.

A host file has one host per line, with settings after its name::

    # the two large ones
    node-a  slots=2
    node-b  slots=2 user=train port=2222
    10.0.0.7  python=/opt/venv/bin/python address=192.168.7.7

slots (1) is how many workers run there, address (its name) what the other workers connect to,
user and port what ssh is told, python the interpreter that has tenfold installed.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import UserError

# Nothing that a shell or ssh could take for something else: no leading '-', no spaces.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:]+")
_SETTINGS: Final = ("slots", "address", "user", "port", "python")


@dataclass(frozen=True)
class HostEntry:
    """One host of a list; empty and None: not given."""

    name: str
    slots: int = 1
    address: str = ""
    user: str = ""
    port: int | None = None
    python: str = ""


def parse_hosts(text: str) -> tuple[HostEntry, ...]:
    """Returns the hosts of ``a,me@b,c:2222``.

    Raises:
      UserError: a name cannot be one, or comes twice.
    """
    return _no_twins([_parse_short(part.strip(), text) for part in text.split(",")])


def _parse_short(part: str, whole: str) -> HostEntry:
    user, _, place = part.rpartition("@")
    name, colon, port = place.partition(":")
    settings = {"user": user, **({"port": port} if colon else {})}
    return _entry(name, {k: v for k, v in settings.items() if v}, f"--hosts={whole}")


def parse_host_file(text: str, *, where: str) -> tuple[HostEntry, ...]:
    """Returns the hosts of a host file; `where` names it in messages.

    Raises:
      UserError: a line is not a host, or names one again; or there is none.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            here = f"{where}, line {number}"
            entries.append(_entry(words[0], _settings(words[1:], here), here))
    if not entries:
        raise UserError(f"{where} names no host")
    return _no_twins(entries)


def _settings(words: Sequence[str], where: str) -> dict[str, str]:
    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in _SETTINGS or not equals or not value:
            near = difflib.get_close_matches(name, _SETTINGS, n=1)
            hint = f"did you mean {near[0]}=…?" if near else f"there are {', '.join(_SETTINGS)}"
            raise UserError(f"{where}: '{word}' is not a setting: {hint}")
        settings[name] = value
    return settings


def _entry(name: str, settings: dict[str, str], where: str) -> HostEntry:
    for what, value, pattern in (
        ("name of a host", name, _NAME),
        ("address", settings.get("address", name), _ADDRESS),
        ("user", settings.get("user", name), _NAME),
    ):
        if not pattern.fullmatch(value):
            raise UserError(f"{where}: '{value}' cannot be the {what}")
    numbers = {
        key: _number(key, settings[key], where) for key in ("slots", "port") if key in settings
    }
    texts = {key: value for key, value in settings.items() if key not in numbers}
    return HostEntry(name, **numbers, **texts)  # type: ignore[arg-type]


def _number(key: str, value: str, where: str) -> int:
    number = int(value) if value.isdecimal() and len(value) < 6 else 0
    if not 1 <= number <= 65535:
        raise UserError(f"{where}: {key}={value} is not a whole number from 1 to 65535")
    return number


def _no_twins(entries: Sequence[HostEntry]) -> tuple[HostEntry, ...]:
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"host '{name}' is named twice: give it once, with slots=2")
    return tuple(entries)


def fill_slots(entries: Sequence[HostEntry], num_workers: int) -> tuple[HostEntry, ...]:
    """Returns the host of each worker: the first host's slots are filled first.

    Raises:
      UserError: there are too few slots.
    """
    slots = [entry for entry in entries for _ in range(entry.slots)]
    if len(slots) < num_workers:
        raise UserError(
            f"{num_workers} workers need as many slots, the hosts have {len(slots)} "
            f"({', '.join(f'{entry.name}: {entry.slots}' for entry in entries)}): "
            "name more hosts, set slots=N in a --host_file, or lower --num_workers"
        )
    return tuple(slots[:num_workers])
