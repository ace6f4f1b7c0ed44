"""What a command gets besides its flags.

Flags as this command line reads them: absl flags, defined per command, units included.

Flags are read here and in `launcher/commands` only; everything below gets values.
"""

import difflib
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from absl import flags
from absl.flags import FlagValues

from tenfold.data.errors import UserError
from tenfold.data.units import format_size, parse_size


@dataclass(frozen=True)
class Arguments:
    """Positional arguments, and the user's own program after ``--``."""

    positional: tuple[str, ...] = ()
    program: tuple[str, ...] = ()

    def expect_none(self) -> None:
        """Checks that there are neither.

        Raises:
          UserError: there is one; the message names it.
        """
        extra = (*self.positional, *self.program)
        if extra:
            raise UserError(f"unexpected argument '{extra[0]}': flags are written --name=value")


T = TypeVar("T")


class _Parser(flags.ArgumentParser, Generic[T]):
    """An absl parser made of two functions: text to value, and value to text."""

    def __init__(self, parse: Callable[[str], T], syntax: str) -> None:
        super().__init__()
        self._parse = parse
        self.syntactic_help = syntax

    def parse(self, argument: Any) -> Any:
        return self._parse(argument) if isinstance(argument, str) else argument


class _Serializer(flags.ArgumentSerializer):
    def __init__(self, show: Callable[[Any], str]) -> None:
        self._show = show

    def serialize(self, value: Any) -> str:
        return self._show(value)


def _define(
    fv: FlagValues,
    name: str,
    default: Any,
    help_text: str,
    parse: Callable[[str], Any],
    *,
    show: Callable[[Any], str] = str,
) -> None:
    flags.DEFINE(_Parser(parse, ""), name, default, help_text, fv, _Serializer(show))


def define_size(fv: FlagValues, name: str, default: int | None, help_text: str) -> None:
    """Defines a flag that reads ``10GB`` or ``64MiB`` and holds bytes."""
    _define(fv, name, default, help_text, parse_size, show=format_size)


def define_counts(fv: FlagValues, name: str, default: Sequence[int], help_text: str) -> None:
    """Defines a flag that reads ``1,2,4`` and holds a tuple of whole numbers of 1 or more."""
    _define(fv, name, tuple(default), help_text, parse_counts, show=_show_counts)


def parse_counts(text: str) -> tuple[int, ...]:
    """Returns the numbers of a list like ``1,2,4``.

    Raises:
      UserError: an entry is not a whole number of 1 or more.
    """
    counts = []
    for part in text.split(","):
        if not part.strip().isdecimal() or int(part) < 1:
            raise UserError(f"'{part.strip()}' in '{text}' is not a whole number of 1 or more")
        counts.append(int(part))
    return tuple(counts)


def _show_counts(counts: Sequence[int]) -> str:
    return ",".join(str(count) for count in counts)


def define_flagfile(fv: FlagValues) -> None:
    """Defines --flagfile, which every command has."""
    if "flagfile" not in fv:
        flags.DEFINE_string("flagfile", "", "reads flags from a file, one a line", flag_values=fv)


def parse_flags(fv: FlagValues, argv: Sequence[str]) -> list[str]:
    """Parses `argv` (without a program name) into `fv`; returns the positional arguments.

    Raises:
      UserError: an unknown flag or a value that its flag does not take.
    """
    define_flagfile(fv)
    try:
        return list(fv(["tenfold", *argv]))[1:]
    except flags.UnrecognizedFlagError as error:
        near = [f"--{name}" for name in _nearest(fv, error.flagname)]
        hint = f"did you mean {' or '.join(near)}?" if near else "--help lists those there are"
        raise UserError(f"unknown flag --{error.flagname}: {hint}") from None
    except flags.CantOpenFlagFileError as error:
        reason = str(error).rpartition("flagfile: ")[2]
        raise UserError(f"--flagfile cannot be read ({reason}): check the path") from None
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None


def _nearest(fv: FlagValues, name: str) -> list[str]:
    return difflib.get_close_matches(name, list(fv), n=2, cutoff=0.6)


# What absl adds to the help of flags that may be given again; ours say it themselves.
_REPEATED: Final = ";\n    repeat this option"


def flags_help(fv: FlagValues) -> str:
    """Returns a command's flags with their help and defaults, as wide as the screen."""
    width = min(shutil.get_terminal_size((96, 24)).columns, 110)
    lines = []
    for name in sorted(fv):
        flag = fv[name]
        shown = f"  --[no]{name}" if flag.boolean else f"  --{name}=…"
        default = (
            flag.serialize().split("=", 1)[-1] if flag.default not in (None, "", [], ()) else ""
        )
        if flag.boolean:
            default = "on" if flag.default else "off"
        text = flag.help.split(_REPEATED)[0] + (f" (default: {default})" if default else "")
        body = textwrap.wrap(text, width - 30) or [""]
        head = shown.ljust(29) + " " if len(shown) < 30 else shown + "\n" + " " * 30
        lines.append(head + ("\n" + " " * 30).join(body))
    return "\n".join(lines)
