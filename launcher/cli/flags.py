"""absl flags as the commands define them: one set per command, in groups, units included.

Only this folder reads flags; everything below it gets plain values.
"""

import contextlib
import functools
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from absl import flags

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.units import format_size, parse_size

GENERAL: Final = "General"
# The help of absl's DEFINE_alias: a former name of a flag, which --help does not show.
_ALIAS: Final = "Alias for --"

# Names that other tools use for these flags; too different for a hint by spelling.
_NAMES_ELSEWHERE: Final = {
    "lr": "learning_rate",
    "bs": "global_batch_size",
    "batch_size": "global_batch_size",
    "gpus": "num_workers",
    "nodes": "num_workers",
    "nproc": "num_workers",
    "nproc_per_node": "num_workers",
    "workers": "num_workers",
    "data": "shards",
    "dataset": "shards",
    "logdir": "run_dir",
    "output_dir": "run_dir",
}


@dataclass(frozen=True)
class Arguments:
    """Positional arguments, and the user's own program after ``--``."""

    positional: tuple[str, ...] = ()
    program: tuple[str, ...] = ()

    def expect_none(self) -> None:
        """Check that there are no positional arguments and no program.

        Raises:
          UserError: there is an argument; the message names the first.
        """
        extra = (*self.positional, *self.program)
        if extra:
            raise UserError(f"unexpected argument '{extra[0]}': flags are written --name=value")


class FlagValues(flags.FlagValues):
    """The flags of one command. Each belongs to the group that was open at its definition."""

    def __init__(self) -> None:
        super().__init__()
        # absl turns attributes into flags, so fields have to bypass its __setattr__.
        self.__dict__["_group_of"] = {}
        self.__dict__["_open_group"] = GENERAL

    @contextlib.contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Put the flags that are defined in this context into the group `title`.

        Groups nest: a flag belongs to the innermost.
        """
        outer = self.__dict__["_open_group"]
        self.__dict__["_open_group"] = title
        try:
            yield
        finally:
            self.__dict__["_open_group"] = outer

    def __setitem__(self, name: str, flag: Any) -> None:
        super().__setitem__(name, flag)
        self.__dict__["_group_of"].setdefault(name, self.__dict__["_open_group"])

    def groups(self) -> dict[str, list[str]]:
        """Return the names of the flags by group, in the order of definition; GENERAL last.

        Aliases of other flags are left out.
        """
        found: dict[str, list[str]] = {}
        for name in self:
            if self[name].help.startswith(_ALIAS):
                continue
            found.setdefault(self.__dict__["_group_of"][name], []).append(name)
        general = found.pop(GENERAL, [])
        return {**found, GENERAL: general} if general else found


def in_group(title: str) -> Callable[[Callable[[FlagValues], None]], Callable[[FlagValues], None]]:
    """Return a decorator that puts all flags which a function defines into one group."""

    def decorate(define: Callable[[FlagValues], None]) -> Callable[[FlagValues], None]:
        @functools.wraps(define)
        def define_in_group(fv: FlagValues) -> None:
            with fv.group(title):
                define(fv)

        return define_in_group

    return decorate


T = TypeVar("T")


class _Parser(flags.ArgumentParser, Generic[T]):
    """An absl parser that calls a function on the text of a flag."""

    def __init__(self, parse: Callable[[str], T]) -> None:
        super().__init__()
        self._parse = parse
        self.syntactic_help = ""

    def parse(self, argument: Any) -> Any:
        return self._parse(argument) if isinstance(argument, str) else argument


class _Serializer(flags.ArgumentSerializer):
    """An absl serializer that calls a function on the value of a flag."""

    def __init__(self, show: Callable[[Any], str]) -> None:
        self._show = show

    def serialize(self, value: Any) -> str:
        return self._show(value)


def define_size(fv: FlagValues, name: str, default: int | None, help_text: str) -> None:
    """Define a flag that reads ``10GB`` or ``64MiB`` and holds bytes."""
    flags.DEFINE(_Parser(parse_size), name, default, help_text, fv, _Serializer(format_size))


def define_counts(fv: FlagValues, name: str, default: Sequence[int], help_text: str) -> None:
    """Define a flag that reads ``1,2,4`` and holds a tuple of whole numbers of 1 or more."""
    serializer = _Serializer(_show_counts)
    flags.DEFINE(_Parser(parse_counts), name, tuple(default), help_text, fv, serializer)


def parse_counts(text: str) -> tuple[int, ...]:
    """Return the numbers of a list like ``1,2,4``.

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
    """Define --flagfile, which every command has."""
    if "flagfile" not in fv:
        flags.DEFINE_string("flagfile", "", "reads flags from a file, one a line", flag_values=fv)


def parse_flags(fv: FlagValues, argv: Sequence[str]) -> list[str]:
    """Parse `argv` (without a program name) into `fv`; return the positional arguments.

    Raises:
      UserError: an unknown flag, or a value that its flag does not take.
    """
    define_flagfile(fv)
    try:
        return list(fv(["tenfold", *argv]))[1:]
    except flags.UnrecognizedFlagError as error:
        hint = _hint(error.flagname, list(fv))
        raise UserError(f"unknown flag --{error.flagname}: {hint}") from None
    except flags.CantOpenFlagFileError as error:
        reason = str(error).rpartition("flagfile: ")[2]
        raise UserError(f"--flagfile cannot be read ({reason}): check the path") from None
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None


def _hint(name: str, known: Sequence[str]) -> str:
    if (elsewhere := _NAMES_ELSEWHERE.get(name)) in known:
        return f"did you mean --{elsewhere}?"
    hint = did_you_mean(
        f"--{name}", [f"--{flag}" for flag in known], otherwise="--help lists the flags"
    )
    return hint.replace("'", "")  # the dashes set a flag apart already


def peek_flag(name: str, argv: Sequence[str]) -> str | None:
    """Return the text of one flag in `argv`, --flagfile included, before the others are defined.

    None where it is not given, or where `argv` cannot be parsed: `parse_flags` says why.
    """
    fv = FlagValues()
    flags.DEFINE_string(name, None, "", flag_values=fv)
    define_flagfile(fv)
    try:
        fv(["tenfold", *argv], known_only=True)
    except flags.Error:
        return None
    value: str | None = fv[name].value
    return value


# absl appends this to the help of repeatable flags; ours already say it.
_REPEATED: Final = ";\n    repeat this option"
_HELP_COLUMN: Final = 30


def flags_help(fv: FlagValues, *, most_used: Sequence[str] = ()) -> str:
    """Return a command's flags with their help and defaults, as wide as the screen.

    Args:
      fv: the flags.
      most_used: the flags to show first, in this order, instead of in their groups.
    """
    groups = {title: [n for n in names if n not in most_used] for title, names in _groups(fv)}
    shown = {"Most used": list(most_used), **groups}
    shown = {title: names for title, names in shown.items() if names}
    width = min(shutil.get_terminal_size((96, 24)).columns, 110)
    sections = []
    for title, names in shown.items():
        lines = [title] if len(shown) > 1 else []
        sections.append("\n".join(lines + [_flag_help(fv[name], width) for name in names]))
    return "\n\n".join(sections)


def _groups(fv: FlagValues) -> list[tuple[str, list[str]]]:
    """Return the groups of `fv`; a single group is sorted by name, for want of structure."""
    groups = list(fv.groups().items())
    return groups if len(groups) > 1 else [(title, sorted(names)) for title, names in groups]


def _flag_help(flag: Any, width: int) -> str:
    shown = f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}=…"
    default = _show_default(flag)
    text = flag.help.split(_REPEATED)[0] + (f" (default: {default})" if default else "")
    body = textwrap.wrap(text, width - _HELP_COLUMN) or [""]
    indent = " " * _HELP_COLUMN
    head = shown.ljust(_HELP_COLUMN) if len(shown) < _HELP_COLUMN else f"{shown}\n{indent}"
    return head + f"\n{indent}".join(body)


def _show_default(flag: Any) -> str:
    if flag.boolean:
        return "on" if flag.default else "off"
    return flag.serialize().split("=", 1)[-1] if flag.default not in (None, "", [], ()) else ""
