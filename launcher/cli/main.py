"""The command line: one subcommand per module of `tenfold.launcher.cli.commands`.

A command module has USAGE (what follows its name), `define_flags(fv)` and
`run(fv, args) -> int`, which gets an `Arguments` and returns the exit status.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final

from tenfold.data.errors import JobError, UserError

# Each with what it does: the overview imports none of them.
COMMANDS: Final = {
    "plan": "computes how many shards a data set should have",
    "write": "writes a data set as shards and a manifest",
    "verify": "reads every byte of a data set and checks it against the manifest",
    "inspect": "shows what is in a data set: schema, counts, classes, some records",
    "launch": "runs a job on several workers: the built-in trainer, or your own program",
    "simulate": "tries several numbers of simulated hosts, or thousands on paper (--dry_run)",
    "bench": "measures how fast the input pipeline alone reads, parses and decodes",
    "report": "shows a finished or running job as one HTML page",
    "doctor": "checks this machine and the hosts of a job before a launch",
}

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


def console() -> None:
    """The ``tenfold`` script: runs `main` on the process's arguments and exits."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output (head, less) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_FAILED
    sys.exit(status)


def main(argv: Sequence[str]) -> int:
    """Runs one command line (without the program's name) and returns its exit status."""
    try:
        return _dispatch(argv)
    except UserError as error:
        return _fail(str(error), EXIT_USAGE)
    except JobError as error:
        return _fail(str(error), EXIT_FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)


def _fail(message: str, status: int) -> int:
    print(f"tenfold: {message}", file=sys.stderr)
    return status


def _dispatch(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else EXIT_USAGE
    if argv[0] == "--version":
        from tenfold import __version__

        print(f"tenfold {__version__}")
        return 0
    return _run_command(argv)


def _run_command(argv: Sequence[str]) -> int:
    # The overview is shown without absl, which costs more than the rest of it.
    from tenfold.launcher.cli.flags import (
        Arguments,
        FlagValues,
        define_flagfile,
        flags_help,
        parse_flags,
    )

    command = command_module(argv[0])
    own, program = _split_program(argv[1:])
    fv = FlagValues()
    command.define_flags(fv)
    define_flagfile(fv)
    if any(arg in ("-h", "--help") for arg in own):
        print(f"tenfold {argv[0]} {command.USAGE}\n\n{COMMANDS[argv[0]]}\n\n{flags_help(fv)}")
        return 0
    positional = parse_flags(fv, own)
    return int(command.run(fv, Arguments(tuple(positional), program)))


def _split_program(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Splits at the first ``--``: what follows is the user's own program."""
    arguments = list(argv)
    if "--" not in arguments:
        return arguments, ()
    at = arguments.index("--")
    return arguments[:at], tuple(arguments[at + 1 :])


def command_module(name: str) -> ModuleType:
    """Returns the module of a command.

    Raises:
      UserError: there is none of this name.
    """
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(COMMANDS)}"
        raise UserError(f"unknown command '{name}': {hint}")
    return importlib.import_module(f"tenfold.launcher.cli.commands.{name}")


def _overview() -> str:
    lines = ["tenfold COMMAND [--flag=value …]", ""]
    lines += [f"  {name:<11} {summary}" for name, summary in COMMANDS.items()]
    lines += ["", "tenfold COMMAND --help lists the flags of a command."]
    lines.append("--flagfile=FILE reads them from a file, one a line; # begins a comment.")
    return "\n".join(lines)
