"""Lists of hosts, as ``--hosts=a,b,c`` or as a host file. Pure.

A host file has one host per line, with settings after its name::

    # the two large ones
    node-a  slots=2
    node-b  slots=2 user=train port=2222
    10.0.0.7  python=/opt/venv/bin/python address=192.168.7.7

- slots (default 1): how many workers run there
- address (default: the name): the address that other workers connect to
- user, port: for ssh
- python: the interpreter that has tenfold installed
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import UserError, did_you_mean

# No leading '-' and no spaces, which ssh or a shell would read as options or further words.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:]+")
_SETTINGS: Final = ("slots", "address", "user", "port", "python")


@dataclass(frozen=True)
class HostEntry:
    """One host of a list; empty and None mean that a setting is not given."""

    name: str
    slots: int = 1
    address: str = ""
    user: str = ""
    port: int | None = None
    python: str = ""


def parse_hosts(text: str) -> tuple[HostEntry, ...]:
    """Return the hosts of ``a,me@b,c:2222``.

    Raises:
      UserError: a name is not a host name, or comes twice.
    """
    return _check_unique([_parse_short(part.strip(), text) for part in text.split(",")])


def _parse_short(part: str, whole: str) -> HostEntry:
    user, _, host = part.rpartition("@")
    name, colon, port = host.partition(":")
    settings = {"user": user, **({"port": port} if colon else {})}
    return _entry(name, {k: v for k, v in settings.items() if v}, f"--hosts={whole}")


def parse_host_file(text: str, *, where: str) -> tuple[HostEntry, ...]:
    """Return the hosts of a host file; `where` names it in messages.

    Raises:
      UserError: a line is not a host, a host comes twice, or there is no host.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            line_name = f"{where}, line {number}"
            entries.append(_entry(words[0], _settings(words[1:], line_name), line_name))
    if not entries:
        raise UserError(f"{where} names no host")
    return _check_unique(entries)


def _settings(words: Sequence[str], where: str) -> dict[str, str]:
    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in _SETTINGS or not equals or not value:
            hint = did_you_mean(f"{name}=…", [f"{setting}=…" for setting in _SETTINGS])
            raise UserError(f"{where}: '{word}' is not a setting: {hint}")
        settings[name] = value
    return settings


def _entry(name: str, settings: dict[str, str], where: str) -> HostEntry:
    for role, value, pattern in (
        ("name of a host", name, _NAME),
        ("address", settings.get("address", name), _ADDRESS),
        ("user", settings.get("user", name), _NAME),
    ):
        if not pattern.fullmatch(value):
            raise UserError(f"{where}: '{value}' cannot be the {role}")
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


def _check_unique(entries: Sequence[HostEntry]) -> tuple[HostEntry, ...]:
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"host '{name}' is named twice: give it once, with slots=2")
    return tuple(entries)


def fill_slots(entries: Sequence[HostEntry], num_workers: int) -> tuple[HostEntry, ...]:
    """Return the host of each worker. Fills the slots of a host before those of the next.

    Raises:
      UserError: there are fewer slots than workers.
    """
    slots = [entry for entry in entries for _ in range(entry.slots)]
    if len(slots) < num_workers:
        raise UserError(
            f"{num_workers} workers need as many slots, the hosts have {len(slots)} "
            f"({', '.join(f'{entry.name}: {entry.slots}' for entry in entries)}): "
            "name more hosts, set slots=N in a --host_file, or lower --num_workers"
        )
    return tuple(slots[:num_workers])
