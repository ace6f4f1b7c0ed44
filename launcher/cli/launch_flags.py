"""Definitions of the flags of `launch` and `doctor`."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.launcher.backends.backend_registry import BACKENDS, backend_options, own_options
from tenfold.launcher.backends.base import Option
from tenfold.launcher.cli.flags import FlagValues, in_group, peek_flag
from tenfold.launcher.cli.train_flags import define_train_flags
from tenfold.launcher.cli.write_flags import define_write_flags

MOST_USED: Final = (
    "shards", "source", "output", "model", "epochs", "global_batch_size", "num_workers",
    "backend", "run_dir", "max_restarts",
)  # fmt: skip


# Begins the titles of groups of flags.
_BACKEND: Final = "Back end "


def define_flags(fv: FlagValues) -> None:
    """Define the flags of launch but those of back ends."""
    with fv.group("Data"):
        flags.DEFINE_string(
            "shards",
            None,
            "folder (or gs://…) of shards to train on, as 'tenfold write' made it; or a mixture, "
            " a:0.7,b:0.3, whose epochs are passes over the first",
            flag_values=fv,
        )  # fmt: skip
    define_write_flags(fv)
    define_train_flags(fv)
    define_job_flags(fv)


def define_job_flags(fv: FlagValues) -> None:
    """Define the flags of any job but --num_workers: where it runs, how, what is printed."""
    _define_run_flags(fv)
    _define_device_flags(fv)
    _define_fault_flags(fv)
    _define_output_flags(fv)


def define_backend_flags(fv: FlagValues, argv: Sequence[str]) -> None:
    """Define the options of the back end that `argv` names, and those of others if need be.

    Other back ends are imported for --help, and where `argv` has a word that may be one of their
    options: it is refused later, with the name of its back end.

    Raises:
      UserError: the back end cannot be loaded, or has an option that is a flag of launch.
    """
    name = peek_flag("backend", argv) or "local"
    if name in BACKENDS:
        _define_options(fv, name, own_options(name))
        if not _are_known(argv, fv):
            _define_all_options(fv)
        return
    launch_names = set(fv)
    _define_all_options(fv)
    options = own_options(name)
    for option in options:
        if option.name in launch_names:
            raise UserError(
                f"back end '{name}' has an option --{option.name}, which is a flag of launch "
                "already: give the option another name"
            )
    _define_options(fv, name, options)


def backend_flag_names(fv: FlagValues) -> list[str]:
    """Return the names of the flags that are options of back ends."""
    groups = fv.groups().items()
    return [name for title, names in groups if title.startswith(_BACKEND) for name in names]


def _are_known(argv: Sequence[str], fv: FlagValues) -> bool:
    """Whether `argv` has only flags that `fv` defines; a flagfile may have others."""
    given = [word.lstrip("-").partition("=")[0] for word in argv if word.startswith("-")]
    known = {*fv, *(f"no{name}" for name in fv)} - {"flagfile"}
    return known.issuperset(given)


def _define_all_options(fv: FlagValues) -> None:
    for name, options in backend_options().items():
        _define_options(fv, name, options)


def _define_options(fv: FlagValues, backend: str, options: Sequence[Option]) -> None:
    """Define options; some back ends share one, whose help the first one has."""
    with fv.group(f"{_BACKEND}{backend}"):
        for option in options:
            if option.name in fv:
                continue
            define = flags.DEFINE_bool if option.is_switch else flags.DEFINE_string
            define(option.name, None, option.help, flag_values=fv)


@in_group("Job")
def _define_run_flags(fv: FlagValues) -> None:
    text = partial(flags.DEFINE_string, flag_values=fv)
    names = ", ".join(BACKENDS)
    text("backend", "local", f"where the workers run: {names}, file.py or module:name")
    text(
        "run_dir", None,
        "folder (or gs://…) for logs, checkpoints, model (default: runs/DATE-NAME)",
    )  # fmt: skip
    flags.DEFINE_list(
        "pass_env", [], "environment variables of this process, as HF_TOKEN,WANDB_API_KEY, that "
        "workers on other machines get too; their values are written nowhere", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "port", None, "worker N listens on this TCP port + N (default: free ones)",
        lower_bound=1, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_bool(
        "preload", True, "import TensorFlow once on this machine and fork the workers from it "
        "(built-in trainer, no GPU)", flag_values=fv,
    )  # fmt: skip


@in_group("Devices and network")
def _define_device_flags(fv: FlagValues) -> None:
    flags.DEFINE_string(
        "gpus_per_worker", "", "GPUs of its host that each worker gets for itself: a number, all "
        "(an equal part of them) or 0 (none); default: those that the host shows it",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_bool(
        "gpu_memory_growth", False, "TensorFlow takes a GPU's memory as it needs it, not all of "
        "it at once (TF_FORCE_GPU_ALLOW_GROWTH)", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_string(
        "network_interface", "", "workers exchange over the address of this interface of each "
        "host, as eth1 (default: over the hosts' own addresses)", flag_values=fv,
    )  # fmt: skip


@in_group("Faults and restarts")
def _define_fault_flags(fv: FlagValues) -> None:
    number = partial(flags.DEFINE_integer, flag_values=fv)
    seconds = partial(flags.DEFINE_float, lower_bound=0.0, flag_values=fv)
    number("max_restarts", 0, "restarts of all workers after crashes", lower_bound=0)
    number("max_preemptions", 100, "restarts of all workers after preemptions", lower_bound=0)
    number(
        "min_workers", None, "continue with as few workers where hosts stay away (default: all)",
        lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_string(
        "regrow_after", "10min", "shortest time between two growths of a job whose lost hosts "
        "answer again: 600 (seconds), 10min, 2h; 0 or never: do not grow", flag_values=fv,
    )  # fmt: skip
    number(
        "spare_hosts", 0, "hosts after those of the workers that stand by to replace lost ones",
        lower_bound=0,
    )  # fmt: skip
    seconds("grace", 20.0, "seconds from SIGTERM to SIGKILL when a job is stopped or preempted")
    seconds("hang_timeout", 60.0, "seconds of silence that are never a hang; 0: no watchdog")
    seconds("rendezvous_timeout", 120.0, "seconds that workers wait for a missing worker")
    flags.DEFINE_multi_string(
        "inject", [], "a fault to inject, as kill:worker=1,step=50 or stop, preempt, raise, "
        "exit0, slow, port, disk_full, bad_shard, lose, and for simulated hosts unplug, freeze; "
        "repeatable", flag_values=fv,
    )  # fmt: skip


@in_group("Output")
def _define_output_flags(fv: FlagValues) -> None:
    flags.DEFINE_bool("dry_run", False, "show what would run, start nothing", flag_values=fv)
    flags.DEFINE_bool(
        "show_tf_logs", False, "show TensorFlow's start-up messages too", flag_values=fv
    )
    flags.DEFINE_enum(
        "format", "text", ["text", "json"], "how the result is printed", flag_values=fv
    )
