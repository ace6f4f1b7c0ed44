"""GPUs of hosts: which worker gets which, and what is wrong with them.

No GPU is needed: a shell script takes the place of ``nvidia-smi``, and the workers show the
variable that CUDA would read.
"""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.launcher.backends.base import Host
from tenfold.launcher.host_checks.finding import ERROR, WARNING
from tenfold.launcher.host_checks.gpu_findings import judge_gpus
from tenfold.launcher.host_checks.look import HostReport
from tenfold.launcher.worker.agent import CannotStart, gpus_of_slot, parse_gpus, visible_gpus

pytestmark = pytest.mark.timeout(120)

LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0aaa)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1bbb)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-2ccc)
GPU 3: NVIDIA A100-SXM4-40GB (UUID: GPU-3ddd)
"""
LISTED_PARTS = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0aaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-11)
  MIG 3g.20gb     Device  1: (UUID: MIG-22)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1bbb)
"""
GPUS = ("GPU-0aaa", "GPU-1bbb", "GPU-2ccc", "GPU-3ddd")
HEADER = "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4  |"
SHOW = "echo gpus=$CUDA_VISIBLE_DEVICES growth=$TF_FORCE_GPU_ALLOW_GROWTH"


@pytest.fixture
def nvidia_smi(add_command: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a script in the place of nvidia-smi that lists some GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def add(listed: str = LISTED, header: str = HEADER) -> None:
        script = f"#!/bin/sh\n[ \"$1\" = -L ] && cat <<'END' || echo '{header}'\n{listed}END\n"
        add_command("nvidia-smi", script)

    return add


def report(
    name: str,
    gpus: tuple[str, ...],
    *,
    workers: int = 1,
    cuda: str = "12.4",
    built: Any = "12.5.1",
) -> HostReport:
    seen = {
        "gpus": {"names": gpus, "driver": "550.54", "cuda": cuda},
        "tensorflow_cuda": built,
    }
    return HostReport(Host(name, "10.0.0.1", "python3"), workers, (1,) * workers, seen)


def test_listed_gpus_are_named_by_uuid() -> None:
    assert parse_gpus(LISTED) == GPUS
    assert parse_gpus(LISTED_PARTS) == ("MIG-11", "MIG-22", "GPU-1bbb")
    assert parse_gpus("No devices were found\n") == ()


def test_set_variable_goes_before_the_list(nvidia_smi: Any) -> None:
    nvidia_smi()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2, MIG-11"}) == ("2", "MIG-11")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,-1,1"}) == ("0",)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_gpus({"PATH": "/nowhere"}) == ()


@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 5))
def test_workers_of_a_host_share_no_gpu(slots: int, each: int, spare: int) -> None:
    gpus = [f"GPU-{number}" for number in range(slots * each + spare)]
    given_out = [
        gpus_of_slot(gpus, slot=slot, slots=slots, each=each).split(",") for slot in range(slots)
    ]
    assert all(len(own) == each for own in given_out)
    assert [name for own in given_out for name in own] == gpus[: slots * each]
    if not spare:
        assert gpus_of_slot(gpus, slot=0, slots=slots, each=None).split(",") == given_out[0]


@pytest.mark.parametrize(
    ("gpus", "slots", "each", "words"),
    [
        (GPUS, 2, 3, "has 4 GPUs for 2 workers"),
        ((), 1, 1, "has 0 GPUs for 1 worker"),
        (GPUS, 3, None, "4 GPUs cannot be divided equally among 3 workers"),
        ((), 2, None, "0 GPUs cannot be divided equally"),
        (("MIG-1", "MIG-2"), 1, 2, "--gpus_per_worker=1"),
    ],
)
def test_impossible_shares_are_refused(gpus: Any, slots: int, each: Any, words: str) -> None:
    with pytest.raises(CannotStart, match=words):
        gpus_of_slot(gpus, slot=0, slots=slots, each=each)


def test_each_worker_of_a_launch_gets_its_gpus(nvidia_smi: Any, tenfold: Any) -> None:
    nvidia_smi()
    launch = ("launch", "--num_workers=2", "--gpu_memory_growth")
    done = tenfold(*launch, "--gpus_per_worker=all", "--", "sh", "-c", SHOW)
    assert done.status == 0, done.err
    assert "[worker 0] gpus=GPU-0aaa,GPU-1bbb growth=true" in done.err
    assert "[worker 1] gpus=GPU-2ccc,GPU-3ddd growth=true" in done.err
    allowed = {"CUDA_VISIBLE_DEVICES": "3,1"}
    done = tenfold(*launch, "--gpus_per_worker=1", "--", "sh", "-c", SHOW, **allowed)
    assert "[worker 0] gpus=3 " in done.err
    assert "[worker 1] gpus=1 " in done.err
    done = tenfold(*launch, "--gpus_per_worker=0", "--", "sh", "-c", SHOW)
    assert "[worker 1] gpus=-1 " in done.err


def test_too_few_gpus_are_refused_before_the_start(nvidia_smi: Any, tenfold: Any) -> None:
    nvidia_smi()
    done = tenfold("launch", "--num_workers=2", "--gpus_per_worker=3", "--", "sh", "-c", SHOW)
    assert done.status == 2
    assert done.err.splitlines()[-1] == (
        "tenfold: localhost: --gpus_per_worker=3: this host has 4 GPUs for 2 workers: lower it, "
        "or run fewer workers there"
    )
    done = tenfold("launch", "--gpus_per_worker=two", "--", "true")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "--gpus_per_worker=two: give a number" in done.err


def test_doctor_reads_gpus_and_driver(nvidia_smi: Any, tenfold: Any) -> None:
    nvidia_smi(header=HEADER.replace("12.4", "11.4"))
    done = tenfold("doctor", "--num_workers=1")
    assert "4 GPUs (driver 550.54.15)" in done.out
    assert "runs CUDA 11.4 at most" in done.out
    assert done.status == 1
    nvidia_smi()
    done = tenfold("doctor", "--num_workers=2", "--noexchange")
    assert "warning: 2 workers on localhost use the same 4 GPUs" in done.out
    assert done.status == 0, done.out


@pytest.mark.parametrize(
    ("reports", "wanted", "level", "words"),
    [
        ([report("a", GPUS), report("b", GPUS[:2])], "", ERROR, ["4 on a, 2 on b"]),
        (
            [report("a", GPUS, workers=2), report("b", GPUS)],
            "all",
            ERROR,
            ["4 for 2 workers on a"],
        ),
        ([report("a", GPUS, workers=2)], "", WARNING, ["same 4 GPUs", "--gpus_per_worker=all"]),
        ([report("a", GPUS[:1])], "2", ERROR, ["a: ", "has 1 GPU for 1 worker"]),
        ([report("a", GPUS, cuda="11.4")], "", ERROR, ["550.54", "11.4", "12.5.1", "driver"]),
        ([report("a", GPUS, built="")], "", WARNING, ["without CUDA", "tensorflow[and-cuda]"]),
    ],
)
def test_each_problem_of_gpus_is_found(
    reports: list[HostReport], wanted: str, level: str, words: list[str]
) -> None:
    (finding,) = judge_gpus(reports, gpus_per_worker=wanted)
    assert finding.level == level
    assert all(word in finding.text for word in words), finding.text


def test_fitting_gpus_give_no_findings() -> None:
    two = [report("a", GPUS, workers=2), report("b", GPUS[:2])]
    assert judge_gpus(two, gpus_per_worker="2") == []
    assert (
        judge_gpus([report("a", GPUS, cuda="12.9"), report("b", GPUS)], gpus_per_worker="") == []
    )
    assert judge_gpus([report("a", (), built=None)], gpus_per_worker="") == []
    unknown = dataclasses.replace(report("a", GPUS, cuda=""))
    assert judge_gpus([unknown], gpus_per_worker="all") == []
