"""`tenfold completion`: what makes a shell complete commands and flags."""

from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.launcher.cli.completion import CommandWords, FlagWords, bash_script, zsh_script
from tenfold.launcher.cli.flags import Arguments, FlagValues, define_flagfile

USAGE: Final = 'SHELL      (in ~/.bashrc or ~/.zshrc: eval "$(tenfold completion SHELL)")'

_SCRIPTS: Final = {"bash": bash_script, "zsh": zsh_script}


def define_flags(fv: FlagValues) -> None:
    """Defines nothing: there are no flags."""
    del fv


def run(fv: FlagValues, args: Arguments) -> int:
    """Prints the script; returns the exit status."""
    del fv
    shells = ", ".join(_SCRIPTS)
    if len(args.positional) != 1 or args.program or args.positional[0] not in _SCRIPTS:
        raise UserError(f"name one shell of {shells}: tenfold completion bash")
    print(_SCRIPTS[args.positional[0]](command_words()), end="")
    return 0


def command_words() -> list[CommandWords]:
    """Returns every command with its flags."""
    from tenfold.launcher.cli.main import COMMANDS, command_module

    return [_words_of(name, summary, command_module(name)) for name, summary in COMMANDS.items()]


def _words_of(name: str, summary: str, module: Any) -> CommandWords:
    fv = FlagValues()
    module.define_flags(fv)
    define_flagfile(fv)
    flags = [
        FlagWords(
            name=flag,
            help=" ".join(fv[flag].help.split()),
            is_boolean=bool(fv[flag].boolean),
            values=tuple(getattr(fv[flag].parser, "enum_values", ())),
        )
        for flag in sorted(fv)
    ]
    return CommandWords(name, summary, tuple(flags))
