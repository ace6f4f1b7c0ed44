"""The command line: one subcommand per module of `tenfold.launcher.cli.commands` and `jobs`.

A command module has

- USAGE: the words that follow its name,
- ``define_flags(fv)``,
- ``run(fv, args) -> int``: gets an `Arguments`, returns the exit status,
- optionally ``define_argv_flags(fv, argv)``: flags that depend on other arguments,
- optionally MOST_USED: the flags that --help shows first.
"""

import atexit
import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Final, NoReturn

from tenfold.data.errors import JobError, UserError, did_you_mean, os_error_text

if TYPE_CHECKING:
    from tenfold.launcher.cli.flags import FlagValues

# Each with its summary, so that the overview imports no command.
COMMANDS: Final = {
    "plan": "computes how many shards a data set should have",
    "write": "writes a data set as shards and a manifest",
    "verify": "reads every byte of a data set and checks it against the manifest",
    "inspect": "shows what is in a data set: schema, counts, classes, some records",
    "launch": "runs a job on several workers: the built-in trainer, or your own program",
    "evaluate": "measures a trained model on a split: loss, metrics, each record once",
    "predict": "writes a trained model's outputs for every record of a split",
    "simulate": "tries several numbers of simulated hosts, or estimates thousands (--dry_run)",
    "bench": "measures how fast the input pipeline alone reads, parses and decodes",
    "report": "shows a finished or running job as one HTML page",
    "status": "tells how far a job is: its workers, its first failure, its platform",
    "logs": "prints the output of a job's workers, also while it runs",
    "cancel": "asks a job to save a checkpoint and stop",
    "list": "lists the jobs whose run directories are in a folder",
    "doctor": "checks this machine and the hosts of a job before a launch",
}

# Commands on jobs that have been launched are in a folder of their own.
_OF_JOBS: Final = ("status", "logs", "cancel", "list")

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


def console() -> None:
    """The ``tenfold`` script: runs `main` on the process's arguments and exits."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output (head, less) has closed it
        # Python flushes stdout at exit: into the closed pipe that would be a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_FAILED
    _end_process(status)


def _end_process(status: int) -> NoReturn:
    """Exit as `sys.exit` does, but do not free every module before: that takes 30 ms."""
    main_thread = threading.main_thread()
    if any(not thread.daemon for thread in threading.enumerate() if thread is not main_thread):
        sys.exit(status)  # waits for these threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def main(argv: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit status."""
    try:
        return _dispatch(argv)
    except UserError as error:
        return _fail(str(error), EXIT_USAGE)
    except JobError as error:
        return _fail(str(error), EXIT_FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(os_error_text(error), EXIT_FAILED)
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
    return _run_command(argv[0], argv[1:])


def _run_command(name: str, argv: Sequence[str]) -> int:
    # Imported here: the overview does without absl, whose import costs more than all the rest.
    from tenfold.launcher.cli.flags import Arguments, FlagValues, define_flagfile, parse_flags

    command = command_module(name)
    own, program = _split_program(argv)
    fv = FlagValues()
    command.define_flags(fv)
    define_flagfile(fv)
    if hasattr(command, "define_argv_flags"):
        command.define_argv_flags(fv, own)
    if any(arg in ("-h", "--help") for arg in own):
        print(_help(name, command, fv))
        return 0
    positional = parse_flags(fv, own)
    return int(command.run(fv, Arguments(tuple(positional), program)))


def _help(name: str, command: ModuleType, fv: "FlagValues") -> str:
    from tenfold.launcher.cli.flags import flags_help

    shown = flags_help(fv, most_used=getattr(command, "MOST_USED", ()))
    return f"tenfold {name} {command.USAGE}\n\n{COMMANDS[name]}\n\n{shown}"


def _split_program(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Split at the first ``--``, after which the user's own program follows."""
    arguments = list(argv)
    if "--" not in arguments:
        return arguments, ()
    index = arguments.index("--")
    return arguments[:index], tuple(arguments[index + 1 :])


def command_module(name: str) -> ModuleType:
    """Return the module of a command.

    Raises:
      UserError: there is no command of this name.
    """
    if name not in COMMANDS:
        raise UserError(f"unknown command '{name}': {did_you_mean(name, COMMANDS)}")
    folder = "jobs" if name in _OF_JOBS else "commands"
    return importlib.import_module(f"tenfold.launcher.cli.{folder}.{name}")


def _overview() -> str:
    lines = ["tenfold COMMAND [--flag=value …]", ""]
    lines += [f"  {name:<11} {summary}" for name, summary in COMMANDS.items()]
    lines += ["", "tenfold COMMAND --help lists the flags of a command."]
    lines.append("--flagfile=FILE reads them from a file, one a line; # begins a comment.")
    return "\n".join(lines)
