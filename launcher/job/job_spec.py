"""What to run (JobSpec), where (ClusterSpec, HostCommand), and how it ended (JobResult)."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tenfold.data.errors import UserError


@dataclass(frozen=True)
class ClusterSpec:
    """The workers' addresses, ``host:port``, by task index. Worker 0 is the chief."""

    workers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.workers:
            raise UserError("a cluster needs at least one worker")
        if len(set(self.workers)) < len(self.workers):
            raise UserError(f"two workers have one address: {', '.join(self.workers)}")

    @property
    def num_workers(self) -> int:
        """How many workers there are."""
        return len(self.workers)

    def tf_config(self, index: int) -> str:
        """Returns the TF_CONFIG of worker `index`, as JSON text."""
        cluster = {"worker": list(self.workers)}
        return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})


@dataclass(frozen=True)
class JobSpec:
    """What to run on every worker.

    `argv` is the worker's program, `env` what is set beside TF_CONFIG and the variables of
    `worker_env`; `train` is the built-in trainer's configuration (`models.config`), empty for
    a user's own program. `cwd` is the folder it runs in.
    """

    argv: tuple[str, ...]
    num_workers: int
    run_dir: str
    cwd: str = "."
    env: dict[str, str] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    def argv_on(self, python: str) -> tuple[str, ...]:
        """Returns argv for a host; the built-in trainer runs under that host's `python`."""
        return (python, *self.argv[1:]) if self.train else self.argv


JOB_FILE: Final = "job.json"


def job_to_json(spec: JobSpec, cluster: ClusterSpec) -> str:
    """Returns the text of job.json: the job and the cluster it runs on now."""
    document = {**asdict(spec), "workers": list(cluster.workers)}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def job_from_json(text: str, *, where: str = JOB_FILE) -> tuple[JobSpec, ClusterSpec]:
    """Returns the job and the cluster that `job_to_json` wrote; `where` names it in errors.

    Raises:
      UserError: the text is not a job of this version.
    """
    try:
        document = json.loads(text)
        cluster = ClusterSpec(tuple(str(worker) for worker in document.pop("workers")))
        argv = tuple(str(argument) for argument in document.pop("argv"))
        return JobSpec(argv=argv, **document), cluster
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where} is not a job file ({type(error).__name__}: {error}): "
            "launch into a new --run_dir"
        ) from error


@dataclass(frozen=True)
class HostCommand:
    """A program as a back end runs it on one host: argv and environment additions."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


def worker_env(
    spec: JobSpec, cluster: ClusterSpec, index: int, *, restart: int = 0
) -> dict[str, str]:
    """Returns what is set in worker `index`'s environment; the documented names for scripts."""
    return {
        **spec.env,
        "TF_CONFIG": cluster.tf_config(index),
        "TENFOLD_WORKER_INDEX": str(index),
        "TENFOLD_NUM_WORKERS": str(cluster.num_workers),
        "TENFOLD_RUN_DIR": spec.run_dir,
        "TENFOLD_RESTART": str(restart),
    }
