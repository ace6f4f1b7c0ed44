"""Completion scripts for bash and zsh, made from the commands and their flags. Pure.

bash takes ``--flag=value`` for three words, zsh for one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class FlagWords:
    """A flag as completion sees it: `values` are all that it takes, empty where any do."""

    name: str
    help: str
    is_boolean: bool = False
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class CommandWords:
    """A command, what it does, and its flags."""

    name: str
    summary: str
    flags: tuple[FlagWords, ...]


_BASH: Final = """\
# Completion of tenfold for bash: eval "$(tenfold completion bash)"
_tenfold() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} flag= words=
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W '{commands}' -- "$cur")
    return
  fi
  if [ "$cur" = "=" ]; then
    flag=$before cur=
  elif [ "$before" = "=" ]; then
    flag=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
  if [ -n "$flag" ]; then
    case "${{COMP_WORDS[1]}} $flag" in
{values}
    esac
  elif [[ $cur == -* ]]; then
    case "${{COMP_WORDS[1]}}" in
{flags}
    esac
    compopt -o nospace 2>/dev/null
  fi
  if [ -n "$words" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
  elif [ -n "$flag" ] || [[ $cur != -* ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  fi
}}
complete -F _tenfold tenfold
"""

_ZSH: Final = """\
#compdef tenfold
# Completion of tenfold for zsh, after compinit: eval "$(tenfold completion zsh)"
_tenfold() {{
  if (( CURRENT == 2 )); then
    local -a commands=(
{commands}
    )
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{flags}
  esac
}}
compdef _tenfold tenfold
"""


def bash_script(commands: Sequence[CommandWords]) -> str:
    """Returns a script for bash (4.4 or later) to evaluate."""
    values, flags = [], []
    for command in commands:
        words = " ".join(word for flag in command.flags for word in _bash_words(flag))
        flags.append(f"      {command.name}) words='{words}' ;;")
        for flag in command.flags:
            if flag.values:
                shown = " ".join(flag.values)
                values.append(f"      '{command.name} --{flag.name}') words='{shown}' ;;")
    names = " ".join(command.name for command in commands)
    return _BASH.format(commands=names, values="\n".join(values), flags="\n".join(flags))


def _bash_words(flag: FlagWords) -> list[str]:
    return [f"--{flag.name}", f"--no{flag.name}"] if flag.is_boolean else [f"--{flag.name}="]


def zsh_script(commands: Sequence[CommandWords]) -> str:
    """Returns a script for zsh to evaluate, or to keep as ``_tenfold`` in a folder of fpath."""
    told = "\n".join(f"      {_quoted(f'{c.name}:{c.summary}')}" for c in commands)
    flags = []
    for command in commands:
        specs = [_quoted(spec) for flag in command.flags for spec in _zsh_specs(flag)]
        words = " \\\n      ".join([*specs, "'*:file:_files'"])
        flags.append(f"    {command.name}) _arguments -S \\\n      {words} ;;")
    return _ZSH.format(commands=told, flags="\n".join(flags))


def _zsh_specs(flag: FlagWords) -> list[str]:
    text = re.sub(r"([\[\]:\\])", r"\\\1", flag.help)
    if flag.is_boolean:
        return [f"--{flag.name}[{text}]", f"--no{flag.name}[not\\: {text}]"]
    values = f"({' '.join(flag.values)})" if flag.values else "_files"
    return [f"--{flag.name}=[{text}]:{flag.name}:{values}"]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
