"""What to run (JobSpec) and where (ClusterSpec, HostCommand); job.json holds both."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.planning.worker_variables import INDEX_VARIABLE, NUMBER_VARIABLE
from tenfold.models.train_config import TrainConfig, config_from_json

ALL_GPUS: Final = "all"
_LOOPBACK: Final = re.compile(r"(127(\.\d+){3}|localhost|\[::1\]):\d+$")

# Arguments of Python that `worker.python_argv` makes for a module of this package.
_OWN_PROGRAM: Final = re.compile(r"-P -m tenfold\.|-c import runpy, sys;.*run_module\('tenfold\.")


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
        """The number of workers."""
        return len(self.workers)

    @property
    def is_on_loopback(self) -> bool:
        """Whether every worker is reached by the loopback device of the others' machines.

        A platform may give a worker itself as ``localhost`` and the others by their names.
        """
        return all(_LOOPBACK.match(address) for address in self.workers)

    def tf_config(self, index: int) -> str:
        """Return the TF_CONFIG of worker `index`, as JSON text."""
        cluster = {"worker": list(self.workers)}
        return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})


@dataclass(frozen=True)
class JobSpec:
    """What to run on every worker.

    Attributes:
      argv: the worker's program and its arguments.
      num_workers: the number of workers.
      run_dir: the run directory, an absolute path or a URL.
      cwd: the folder in which the program runs.
      env: environment variables besides TF_CONFIG and those of `worker_env`.
      train: the configuration of the built-in trainer, None for a user's own program.
      gpus_per_worker: how many GPUs of its host each worker gets: a number, ``all`` for an equal
        part of all, "" for those that its host shows it.
    """

    argv: tuple[str, ...]
    num_workers: int
    run_dir: str
    cwd: str = "."
    env: dict[str, str] = field(default_factory=dict)
    train: TrainConfig | None = None
    gpus_per_worker: str = ""

    def argv_on(self, python: str) -> tuple[str, ...]:
        """Return argv for a host; a program of this package runs under that host's `python`."""
        return (python, *self.argv[1:]) if self._is_own else self.argv

    def gpus_of(self, slot: int, slots: int) -> dict[str, int | None] | None:
        """Return the agent's request for the GPUs of one of a host's workers (see agent.py)."""
        if not self.gpus_per_worker:
            return None
        each = None if self.gpus_per_worker == ALL_GPUS else int(self.gpus_per_worker)
        return {"slot": slot, "slots": slots, "each": each}

    @property
    def _is_own(self) -> bool:
        return self.train is not None or bool(_OWN_PROGRAM.match(" ".join(self.argv[1:4])))


@dataclass(frozen=True)
class _JobDocument:
    """The keys of job.json; `train` is empty or null for a user's own program."""

    argv: tuple[str, ...]
    num_workers: int
    run_dir: str
    workers: tuple[str, ...]
    cwd: str = "."
    env: dict[str, str] = field(default_factory=dict)
    train: Mapping[str, Any] | None = None
    gpus_per_worker: str = ""


def job_to_json(spec: JobSpec, cluster: ClusterSpec) -> str:
    """Return the text of job.json: the job, and the cluster that it runs on now."""
    document = {**asdict(spec), "workers": list(cluster.workers)}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def job_from_json(text: str, *, where: str) -> tuple[JobSpec, ClusterSpec]:
    """Return the job and the cluster that `job_to_json` wrote; `where` names it in errors.

    Raises:
      UserError: the text is not a job of this version; the message names the field.
    """
    try:
        document = from_json_fields(_JobDocument, json.loads(text))
        spec = JobSpec(
            argv=document.argv,
            num_workers=document.num_workers,
            run_dir=document.run_dir,
            cwd=document.cwd,
            env=document.env,
            train=config_from_json(document.train) if document.train else None,
            gpus_per_worker=document.gpus_per_worker,
        )
        return spec, ClusterSpec(document.workers)
    except (ValueError, UserError) as error:
        raise UserError(
            f"{where} is not a job file ({error}): launch into a new --run_dir"
        ) from error


@dataclass(frozen=True)
class HostCommand:
    """A program as a back end runs it on one host: argv and additional environment variables."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SubmittedJob:
    """How a platform knows a job that was handed over to it: the content of submission.json.

    Attributes:
      backend: the name of the back end, as --backend gives it.
      job: the platform's number or name of the job.
      kind: the kind of object, where the platform has several.
      namespace: the namespace, where the platform has some; "" is the default one.
    """

    backend: str
    job: str
    kind: str = ""
    namespace: str = ""

    def to_json(self) -> bytes:
        """Return the content of submission.json."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def worker_env(
    spec: JobSpec, cluster: ClusterSpec, index: int, *, restart: int = 0
) -> dict[str, str]:
    """Return the environment variables of worker `index`; docs/scripts.md documents them."""
    return {
        **spec.env,
        "TF_CONFIG": cluster.tf_config(index),
        INDEX_VARIABLE: str(index),
        NUMBER_VARIABLE: str(cluster.num_workers),
        "TENFOLD_RUN_DIR": spec.run_dir,
        "TENFOLD_RESTART": str(restart),
    }
