"""The place of a process from the variables of its launcher."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.planning.cluster_task import find_task

WORKERS = ["a:1", "b:1", "c:1"]


def tf_config(index: int, kind: str = "worker", **cluster: list[str]) -> dict[str, str]:
    config = {"cluster": cluster or {"worker": WORKERS}, "task": {"type": kind, "index": index}}
    return {"TF_CONFIG": json.dumps(config)}


def vertex(kind: str, index: int) -> dict[str, str]:
    cluster = {"workerpool0": ["v-0:2222"], "workerpool1": ["w-0:2222", "w-1:2222"]}
    cluster |= {"workerpool2": ["ps-0:2222"], "workerpool3": ["e-0:2222"]}
    task = {"type": kind, "index": index, "trial": ""}
    spec = {"cluster": cluster, "task": task, "environment": "cloud", "job": "{}"}
    return {"CLUSTER_SPEC": json.dumps(spec)}


def ours(index: int, number: int) -> dict[str, str]:
    return {"TENFOLD_WORKER_INDEX": str(index), "TENFOLD_NUM_WORKERS": str(number)}


def mpi(index: int, number: int) -> dict[str, str]:
    return {"OMPI_COMM_WORLD_RANK": str(index), "OMPI_COMM_WORLD_SIZE": str(number)}


# As Slurm 22.05 sets them in a batch script and in a step of it.
BATCH = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4"}


def step(index: int, number: int, **more: str) -> dict[str, str]:
    own = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(number), "SLURM_PROCID": str(index)}
    return {**BATCH, **own, **more}


def sagemaker(host: str, *hosts: str) -> dict[str, str]:
    return {"SM_CURRENT_HOST": host, "SM_HOSTS": json.dumps(hosts)}


def resources(host: str, *hosts: str) -> dict[str, str]:
    config = {"current_host": host, "hosts": hosts, "network_interface_name": "eth0"}
    return {"SM_RESOURCE_CONFIG": json.dumps(config)}


# environment, (index, number of workers)
PLACES = [
    (tf_config(1), (1, 3)),
    (tf_config(0, chief=["x:1"], worker=["a:1"]), (1, 2)),
    (tf_config(0, "chief", worker=["a:1"], chief=["x:1"], evaluator=["e:1"]), (0, 2)),
    (vertex("workerpool0", 0), (0, 3)),
    (vertex("workerpool1", 1), (2, 3)),
    (sagemaker("algo-2", "algo-1", "algo-10", "algo-2"), (2, 3)),
    (resources("algo-1", "algo-2", "algo-1"), (0, 2)),
    (sagemaker("b", "a", "b") | resources("b", "a", "b"), (1, 2)),
    (step(3, 4), (3, 4)),
    (mpi(1, 2), (1, 2)),
    ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, 2)),
    ({"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "2"}, (0, 2)),
    ({"JOB_COMPLETION_INDEX": "1", "TENFOLD_NUM_WORKERS": "2"}, (1, 2)),
    ({"PMIX_RANK": "1", "TENFOLD_NUM_WORKERS": "2"}, (1, 2)),
    # Nested launchers: the innermost counts.
    (ours(1, 2) | step(0, 1), (1, 2)),
    (ours(1, 2) | step(3, 4), (1, 2)),
    (mpi(3, 8) | step(0, 2), (3, 8)),
    (mpi(3, 8) | sagemaker("a", "a", "b"), (3, 8)),
    (step(1, 2) | vertex("workerpool0", 0), (1, 2)),
    (step(1, 2, PMIX_RANK="1"), (1, 2)),
    # TF_CONFIG agrees with the launcher, or the launcher has started one process alone.
    (tf_config(2) | step(2, 3), (2, 3)),
    (tf_config(2) | step(0, 1), (2, 3)),
    (tf_config(2) | BATCH, (2, 3)),
    (tf_config(2) | {"JOB_COMPLETION_INDEX": "2"}, (2, 3)),
    (tf_config(1, chief=["v-0:2222"], worker=["w-0:2222", "w-1:2222"])
     | vertex("workerpool1", 1), (2, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "place"), PLACES)
def test_launcher_gives_the_place(environ: dict[str, str], place: tuple[int, int]) -> None:
    task = find_task(environ)
    assert task is not None
    assert task.place == place


# The batch script is no task, nor is a step that Slurm makes for itself, nor an empty TF_CONFIG.
@pytest.mark.parametrize(
    "environ",
    [{}, BATCH, step(0, 4, SLURM_STEP_ID="4294967291"), {"TF_CONFIG": "{}"}, {"TF_CONFIG": " "},
     {"TENFOLD_NUM_WORKERS": "4"}, {"PMI_RANK": "1"}],
)  # fmt: skip
def test_process_outside_of_launchers_has_no_place(environ: dict[str, str]) -> None:
    assert find_task(environ) is None


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (tf_config(0) | step(2, 3), "0 of 3 by TF_CONFIG, but worker 2 of 3 by SLURM_PROCID"),
        (tf_config(0, worker=["a:1"]) | mpi(1, 2), "0 of 1 by TF_CONFIG, but worker 1 of 2"),
        (tf_config(0) | ours(1, 3), "1 of 3 by TENFOLD_WORKER_INDEX, but worker 0 of 3"),
        (tf_config(0) | vertex("workerpool1", 0), "TF_CONFIG, but worker 1 of 3 by CLUSTER_SPEC"),
        (sagemaker("b", "a", "b") | resources("a", "a", "b"), "HOSTS, but worker 0 of 2 by SM_"),
        (mpi(1, 2) | {"PMI_RANK": "0", "PMI_SIZE": "2"}, "RANK, but worker 0 of 2 by PMI_RANK"),
        (sagemaker("c", "a", "b"), "SM_HOSTS has no host 'c', only a, b"),
        ({"SM_CURRENT_HOST": "a", "SM_HOSTS": "a,b"}, "SM_HOSTS is not JSON"),
        ({"SM_CURRENT_HOST": "a", "SM_HOSTS": '{"a": 1}'}, "SM_HOSTS is not a list of host names"),
        ({"SM_RESOURCE_CONFIG": "[]"}, "SM_RESOURCE_CONFIG is not an object"),
        (vertex("workerpool3", 0), "type 'workerpool3', which does not share"),
        (vertex("workerpool1", 2), "'workerpool1:2' is not in its cluster"),
        (tf_config(0, "ps", worker=["a:1"], ps=["p:1"]), "type 'ps', which does not share"),
        ({"TF_CONFIG": '{"cluster": {"worker": "a:1"}}'}, "a list of addresses as its cluster's"),
        ({"JOB_COMPLETION_INDEX": "1"}, "nothing gives the number of workers: set TENFOLD_NUM_"),
        ({"PMIX_RANK": "0"}, "PMIX_RANK is 0, but nothing gives the number of workers"),
        (step(0, 2, SLURM_HET_SIZE="2"), "heterogeneous Slurm job"),
        (mpi(2, 2), "OMPI_COMM_WORLD_RANK is '2' and OMPI_COMM_WORLD_SIZE is '2': an index below"),
        ({"TENFOLD_WORKER_INDEX": "1"}, "TENFOLD_NUM_WORKERS is ''"),
        ({"TENFOLD_WORKER_INDEX": "-1", "TENFOLD_NUM_WORKERS": "2"}, "is '-1'"),
    ],
)  # fmt: skip
def test_contradiction_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_task(environ)


def test_task_knows_addresses_or_hosts() -> None:
    known = [
        (tf_config(0, "chief", chief=["x:1"], worker=["a:1", "b:1"]), ("x:1", "a:1", "b:1"), ()),
        (ours(1, 3) | tf_config(1), tuple(WORKERS), ()),
        (sagemaker("algo-2", "algo-2", "algo-1"), (), ("algo-1", "algo-2")),
        (mpi(0, 2), (), ()),
    ]
    for environ, addresses, hosts in known:
        task = find_task(environ)
        assert task is not None
        assert (task.addresses, task.hosts) == (addresses, hosts)


NAMES = ("TF_CONFIG", "CLUSTER_SPEC", "SM_HOSTS", "SM_CURRENT_HOST", "SM_RESOURCE_CONFIG",
         "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "PMI_RANK", "PMI_SIZE",
         "TENFOLD_WORKER_INDEX", "TENFOLD_NUM_WORKERS", "PMIX_RANK")  # fmt: skip
JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from(["worker", "a:1"]),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["cluster", "task", "worker", "index", "type", "hosts", "current_host"]),
        inner,
    ),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), JSON.map(json.dumps) | st.text() | st.just("1")))
def test_any_environment_gives_a_place_or_a_user_error(environ: dict[str, str]) -> None:
    try:
        task = find_task(environ)
    except UserError:
        return
    assert task is None or 0 <= task.index < task.num_workers
