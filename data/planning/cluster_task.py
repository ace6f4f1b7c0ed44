"""Which worker of a job this process is, read from its environment variables. Pure.

A process may see the variables of several launchers: mpirun in a Slurm job in a container. The
innermost one has started the process, so the readers stand in that order. TF_CONFIG comes from a
person or a platform and has to agree with the launcher that started the process.

Formats: tensorflow.org/guide/distributed_training (TF_CONFIG), cloud.google.com/vertex-ai/docs/
training/distributed-training (CLUSTER_SPEC), github.com/aws/sagemaker-training-toolkit
(ENVIRONMENT_VARIABLES.md), slurm.schedmd.com/srun.html (output environment variables),
docs.open-mpi.org (OMPI_COMM_WORLD_RANK), kubernetes.io/docs/concepts/workloads/controllers/job.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.planning.worker_variables import INDEX_VARIABLE, NUMBER_VARIABLE

# Task types that train, in the order in which TensorFlow numbers them. The first pool of
# Vertex AI is the chief, the second the workers; the others are parameter servers or reducers,
# and evaluators.
_TF_CONFIG_TYPES: Final = ("chief", "master", "worker")
_VERTEX_TYPES: Final = ("workerpool0", "workerpool1")

_MPI_VARIABLES: Final = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),  # MVAPICH2
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI, Cray PALS, srun --mpi=pmi2
)
# An index without the number of workers.
_LONE_INDEXES: Final = ("PMIX_RANK", "JOB_COMPLETION_INDEX")
# Slurm's own steps, the batch script among them, have ids from here on (slurm.h).
_FIRST_SPECIAL_STEP: Final = 0xFFFFFFF0

_REMEDY: Final = "mend it, or give place=WorkerPlace(index, num_workers)"


@dataclass(frozen=True)
class ClusterTask:
    """The place of a process among the workers of a job.

    Attributes:
      index: the worker's index, from 0; worker 0 is the chief.
      num_workers: the number of workers.
      source: the variable or launcher that says so, for messages.
      addresses: ``host:port`` of every worker by index; empty where they are unknown.
      hosts: the host of every worker by index, one worker each; empty where they are unknown.
    """

    index: int
    num_workers: int
    source: str
    addresses: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """The index and the number of workers."""
        return self.index, self.num_workers

    def __str__(self) -> str:
        return f"worker {self.index} of {self.num_workers} by {self.source}"


def find_task(environ: Mapping[str, str]) -> ClusterTask | None:
    """Return the place of the process with the environment `environ`; None if nothing says one.

    Variables of `tenfold launch` count before all others; then TF_CONFIG, which must agree with
    the innermost launcher that has started several workers.

    Raises:
      UserError: variables contradict each other or have impossible values, the process does not
        train (an evaluator, a parameter server), or the number of workers is unknown.
    """
    config = read_tf_config(environ)
    if own := read_tenfold(environ):
        _check_agreement(own, config)
        return replace(own, addresses=config.addresses if config else ())
    started = next((task for read in _LAUNCHERS if (task := read(environ))), None)
    if config is None:
        return started or _read_lone_index(environ)
    if started is not None and started.num_workers > 1:
        _check_agreement(config, started)
    return config


def _check_agreement(task: ClusterTask, other: ClusterTask | None) -> None:
    if other is not None and other.place != task.place:
        raise UserError(
            f"this process is {task}, but {other}: unset the variables that are wrong, or give "
            "place=WorkerPlace(index, num_workers)"
        )


def read_tenfold(environ: Mapping[str, str]) -> ClusterTask | None:
    """Return the place that `tenfold launch` has set."""
    if not environ.get(INDEX_VARIABLE):
        return None  # a person may give the number alone, see `_read_lone_index`
    return _read_numbers(environ, INDEX_VARIABLE, NUMBER_VARIABLE, source=INDEX_VARIABLE)


def read_tf_config(environ: Mapping[str, str]) -> ClusterTask | None:
    """Return the place that TF_CONFIG gives: a chief first, then the workers in their order."""
    return _read_cluster(environ, "TF_CONFIG", _TF_CONFIG_TYPES)


def read_vertex(environ: Mapping[str, str]) -> ClusterTask | None:
    """Return the place that Vertex AI's CLUSTER_SPEC gives."""
    return _read_cluster(environ, "CLUSTER_SPEC", _VERTEX_TYPES)


def read_mpi(environ: Mapping[str, str]) -> ClusterTask | None:
    """Return the rank of the innermost MPI launcher."""
    found = [
        _read_numbers(environ, rank, size, source=rank)
        for rank, size in _MPI_VARIABLES
        if environ.get(rank) and environ.get(size)
    ]
    for other in found[1:]:
        _check_agreement(found[0], other)
    return found[0] if found else None


def read_slurm(environ: Mapping[str, str]) -> ClusterTask | None:
    """Return the rank in a job step; None in a batch script, which has SLURM_PROCID=0 too."""
    if not _is_slurm_step(environ) or _is_heterogeneous(environ):
        return None
    return _read_numbers(environ, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", source="SLURM_PROCID")


def _is_slurm_step(environ: Mapping[str, str]) -> bool:
    step = environ.get("SLURM_STEP_ID", "")
    return step.isdecimal() and int(step) < _FIRST_SPECIAL_STEP


def _is_heterogeneous(environ: Mapping[str, str]) -> bool:
    """Whether the job has several components, each of which counts its own tasks."""
    return environ.get("SLURM_HET_SIZE", "1") not in ("", "1")


def read_sagemaker(environ: Mapping[str, str]) -> ClusterTask | None:
    """Return the place among SageMaker's hosts, in the order of their names as SageMaker's own."""
    by_hosts, by_resources = _read_sm_hosts(environ), _read_sm_resources(environ)
    if by_hosts:
        _check_agreement(by_hosts, by_resources)
    return by_hosts or by_resources


def _read_sm_hosts(environ: Mapping[str, str]) -> ClusterTask | None:
    host = environ.get("SM_CURRENT_HOST", "")
    if not host or not environ.get("SM_HOSTS"):
        return None
    return _host_task("SM_HOSTS", host, _parse_json(environ, "SM_HOSTS"))


def _read_sm_resources(environ: Mapping[str, str]) -> ClusterTask | None:
    name = "SM_RESOURCE_CONFIG"
    if not environ.get(name):
        return None
    resources = _parse_json(environ, name)
    if not isinstance(resources, dict):
        raise _not_json(name, "an object with 'current_host' and 'hosts'")
    return _host_task(name, resources.get("current_host"), resources.get("hosts"))


def _host_task(name: str, host: Any, hosts: Any) -> ClusterTask:
    if not isinstance(hosts, list) or not all(isinstance(each, str) for each in hosts):
        raise _not_json(name, "a list of host names")
    if host not in hosts:
        raise UserError(f"{name} has no host '{host}', only {', '.join(hosts)}: {_REMEDY}")
    ordered = sorted(hosts)
    return ClusterTask(ordered.index(host), len(hosts), name, hosts=tuple(ordered))


# Innermost first: mpirun runs inside a Slurm step or a container, and srun inside a container.
_LAUNCHERS: Final[tuple[Callable[[Mapping[str, str]], ClusterTask | None], ...]] = (
    read_mpi,
    read_slurm,
    read_vertex,
    read_sagemaker,
)


def _read_lone_index(environ: Mapping[str, str]) -> ClusterTask | None:
    """Return the place of an index whose number of workers NUMBER_VARIABLE has to give.

    A process that took itself for the only worker would read all records, as its peers would.
    """
    if _is_slurm_step(environ) and _is_heterogeneous(environ):
        raise UserError(
            "this is a step of a heterogeneous Slurm job, whose ranks do not number all workers: "
            "set TF_CONFIG, or give place=WorkerPlace(index, num_workers)"
        )
    name = next((name for name in _LONE_INDEXES if environ.get(name)), "")
    if not name:
        return None
    if not environ.get(NUMBER_VARIABLE):
        raise UserError(
            f"{name} is {environ[name]}, but nothing gives the number of workers: set "
            f"{NUMBER_VARIABLE} or TF_CONFIG, or give place=WorkerPlace(index, num_workers); "
            "place=WorkerPlace() reads everything in this process"
        )
    return _read_numbers(environ, name, NUMBER_VARIABLE, source=name)


def _read_numbers(
    environ: Mapping[str, str], index_name: str, number_name: str, *, source: str
) -> ClusterTask:
    index, number = environ.get(index_name, ""), environ.get(number_name, "")
    if not (index.isdecimal() and number.isdecimal() and int(index) < int(number)):
        raise UserError(
            f"{index_name} is '{index}' and {number_name} is '{number}': an index below the "
            f"number of workers is needed; {_REMEDY}"
        )
    return ClusterTask(int(index), int(number), source)


def _read_cluster(
    environ: Mapping[str, str], name: str, types: Sequence[str]
) -> ClusterTask | None:
    """Return the place that a JSON object with `cluster` and `task` gives.

    Args:
      environ: the environment.
      name: the variable.
      types: the task types that train, in their order.
    """
    if not environ.get(name, "").strip():
        return None
    config = _parse_json(environ, name)
    cluster, task = (
        (config.get(key) or {} for key in ("cluster", "task"))
        if isinstance(config, dict)
        else (None, None)
    )
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise _not_json(name, "an object with 'cluster' and 'task'")
    workers = dict(_workers_of(cluster, name, types))
    if not workers:
        return None
    index = _task_index(task, tuple(workers), name, types)
    return ClusterTask(index, len(workers), name, addresses=tuple(workers.values()))


def _workers_of(
    cluster: Mapping[str, Any], name: str, types: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield ``type:number`` and the address of each worker."""
    for kind in types:
        addresses = cluster.get(kind) or []
        if not isinstance(addresses, list) or not all(isinstance(each, str) for each in addresses):
            raise _not_json(name, f"a list of addresses as its cluster's '{kind}'")
        yield from ((f"{kind}:{number}", address) for number, address in enumerate(addresses))


def _task_index(
    task: Mapping[str, Any], workers: Sequence[str], name: str, types: Sequence[str]
) -> int:
    if not task and len(workers) == 1:
        return 0
    kind = task.get("type", types[-1])
    if kind not in types:
        raise UserError(
            f"{name}: this task is of type '{kind}', which does not share the workers' records: "
            "give place=WorkerPlace() to read the whole split here"
        )
    own = f"{kind}:{task.get('index', '')}"
    if own not in workers:
        raise UserError(
            f"{name}: task '{own}' is not in its cluster, which has {', '.join(workers)}: "
            f"{_REMEDY}"
        )
    return workers.index(own)


def _parse_json(environ: Mapping[str, str], name: str) -> Any:
    try:
        return json.loads(environ[name])
    except ValueError as error:
        raise UserError(f"{name} is not JSON ({error}): {_REMEDY}") from error


def _not_json(name: str, wanted: str) -> UserError:
    return UserError(f"{name} is not {wanted} in JSON: {_REMEDY}")
