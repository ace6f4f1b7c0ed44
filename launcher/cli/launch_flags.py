"""The flags of `launch` (and `doctor`), and what they decide before anything is started."""

from functools import partial

from absl import flags

from tenfold.launcher.backends.backend_registry import BACKENDS, backend_options
from tenfold.launcher.cli.flags import FlagValues
from tenfold.launcher.cli.train_flags import define_train_flags
from tenfold.launcher.cli.write_flags import define_write_flags


def define_flags(fv: FlagValues) -> None:
    """Defines the flags of launch."""
    text, number = partial(flags.DEFINE_string, flag_values=fv), partial(_define_int, fv)
    define_write_flags(fv)
    text("shards", None, "folder (or gs://…) of shards to train on, as 'tenfold write' made it")
    text("backend", "local", f"where the workers run: {', '.join(BACKENDS)}")
    for name, options in backend_options().items():
        for option in options:
            text(option.name, None, f"{option.help} (--backend={name})")
    flags.DEFINE_list(
        "pass_env", [], "environment variables of this process, as HF_TOKEN,WANDB_API_KEY, that "
        "workers on other machines get too; their values are written nowhere", flag_values=fv,
    )  # fmt: skip
    text(
        "run_dir",
        None,
        "folder (or gs://…) for logs, checkpoints, model (default: runs/DATE-NAME)",
    )
    number("port", None, "worker N listens on this TCP port + N (default: free ones)")
    define_train_flags(fv)
    number("min_workers", None, "go on with as few where hosts stay away (default: all)")
    flags.DEFINE_multi_string(
        "inject", [], "a fault on purpose, as kill:worker=1,step=50 or stop, preempt, raise, "
        "exit0, slow, port, disk_full, bad_shard, lose, and for simulated hosts unplug, freeze; "
        "may be given again", flag_values=fv,
    )  # fmt: skip
    number("max_restarts", 0, "crashes after which all workers start again", lower=0)
    number("max_preemptions", 100, "preemptions after which they start again", lower=0)
    seconds = partial(flags.DEFINE_float, lower_bound=0.0, flag_values=fv)
    seconds("grace", 20.0, "seconds from SIGTERM to SIGKILL when a job is stopped or preempted")
    seconds("hang_timeout", 60.0, "seconds of silence that are never a hang; 0: no watchdog")
    seconds("rendezvous_timeout", 120.0, "seconds that workers wait for one that does not come")
    flags.DEFINE_bool(
        "show_tf_logs", False, "show TensorFlow's start-up messages too", flag_values=fv
    )
    flags.DEFINE_bool(
        "preload", True, "import TensorFlow once on this machine and fork the workers from it "
        "(built-in trainer, no GPU)", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_bool("dry_run", False, "show what would run, start nothing", flag_values=fv)
    flags.DEFINE_enum(
        "format", "text", ["text", "json"], "how the result is printed", flag_values=fv
    )


def _define_int(
    fv: FlagValues, name: str, default: int | None, help_text: str, *, lower: int = 1
) -> None:
    flags.DEFINE_integer(name, default, help_text, lower_bound=lower, flag_values=fv)
