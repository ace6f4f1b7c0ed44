"""YAML as text, of plain values: enough for manifests, with nothing to install.

Every string is quoted as JSON does it, which YAML 1.2 reads alike (yaml.org/spec/1.2.2, 1.3);
texts of several lines are literal blocks (8.1.2).
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_PLAIN: Final = re.compile(r"[a-z][A-Za-z]+")
_NOT_TEXT: Final = ("true", "false", "null", "yes", "no", "on", "off")  # in YAML 1.1


def to_yaml(documents: Sequence[Mapping[str, Any]]) -> str:
    """Returns one YAML text of several documents, newline included."""
    return "---\n".join("\n".join(_lines(document)) + "\n" for document in documents)


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [line for key, item in value.items() for line in _member(str(key), item)]
    if isinstance(value, list | tuple) and value:
        return [line for item in value for line in _indented(_lines(item), "- ")]
    return [_scalar(value)]


def _scalar(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _member(key: str, item: Any) -> list[str]:
    if isinstance(item, Mapping | list | tuple) and item:
        return [f"{_key(key)}:", *_indented(_lines(item), "  ")]
    if isinstance(item, str) and _is_block(item):
        return [f"{_key(key)}: |", *(f"  {line}" for line in item.splitlines())]
    return [f"{_key(key)}: {_scalar(item)}"]


def _is_block(text: str) -> bool:
    """Whether a literal block gives `text` back: whole lines of print, the first not indented."""
    lines = text.split("\n")
    printable = all(line.isprintable() and line == line.rstrip() and line for line in lines[:-1])
    return len(lines) > 2 and lines[-1] == "" and printable and not lines[0].startswith(" ")


def _key(key: str) -> str:
    is_plain = _PLAIN.fullmatch(key) and key.lower() not in _NOT_TEXT
    return key if is_plain else _scalar(key)


def _indented(lines: Sequence[str], first: str) -> list[str]:
    return [first + lines[0], *("  " + line for line in lines[1:])]
