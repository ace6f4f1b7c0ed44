"""Turn what hosts report of their GPUs into errors and warnings. Pure."""

from collections.abc import Iterator, Sequence

from tenfold.data.units import plural
from tenfold.launcher.host_checks.finding import ERROR, WARNING, Finding
from tenfold.launcher.host_checks.look import HostReport
from tenfold.launcher.job.job_spec import ALL_GPUS
from tenfold.launcher.worker.agent import CannotStart, gpus_of_slot


def judge_gpus(reports: Sequence[HostReport], *, gpus_per_worker: str) -> list[Finding]:
    """Return the problems of the hosts' GPUs, drivers and builds of TensorFlow.

    Args:
      reports: the reports of hosts that have answered.
      gpus_per_worker: a number, ``all``, or "" where workers use the GPUs that they see.
    """
    found = [] if gpus_per_worker == "0" else list(_judge_numbers(reports, gpus_per_worker))
    for report in reports:
        found += _judge_versions(report)
    return found


def _judge_numbers(reports: Sequence[HostReport], wanted: str) -> Iterator[Finding]:
    for report in reports:
        name, gpus = report.host.name, report.seen["gpus"]["names"]
        if wanted:
            try:
                each = None if wanted == ALL_GPUS else int(wanted)
                gpus_of_slot(gpus, slot=0, slots=report.workers, each=each)
            except CannotStart as error:
                yield Finding(ERROR, "gpus", f"{name}: {error}", host=name)
        elif gpus and report.workers > 1:
            text = f"{report.workers} workers on {name} use the same {plural(len(gpus), 'GPU')}, "
            text += "of which the first takes all memory: give --gpus_per_worker=all"
            yield Finding(WARNING, "gpus", text, host=name)
    # Without the flag every worker sees all GPUs of its host, with a number all have the same.
    numbers = {
        report.host.name: len(report.seen["gpus"]["names"])
        / (report.workers if wanted == ALL_GPUS else 1)
        for report in reports
    }
    if wanted in ("", ALL_GPUS) and len(set(numbers.values())) > 1:
        listed = ", ".join(f"{_counted(report)} on {report.host.name}" for report in reports)
        text = f"the numbers of GPUs differ: {listed}; MultiWorkerMirroredStrategy needs the same "
        text += "number on every worker: give --gpus_per_worker=N"
        yield Finding(ERROR, "gpus", text)


def _counted(report: HostReport) -> str:
    text = str(len(report.seen["gpus"]["names"]))
    return text + (f" for {report.workers} workers" if report.workers > 1 else "")


def _judge_versions(report: HostReport) -> Iterator[Finding]:
    """Compare the driver with the CUDA that TensorFlow was built for.

    A driver runs programs of every minor version of its CUDA, and of older ones (NVIDIA's "CUDA
    Compatibility").
    """
    name, gpus, built = report.host.name, report.seen["gpus"], report.seen["tensorflow_cuda"]
    if not gpus["names"] or built is None:
        return
    if not built:
        text = f"TensorFlow on {name} is built without CUDA, and uses none of its "
        text += f"{plural(len(gpus['names']), 'GPU')}: pip install 'tensorflow[and-cuda]' there"
        yield Finding(WARNING, "gpus", text, host=name)
    elif gpus["cuda"] and _major(gpus["cuda"]) < _major(built):
        text = f"the driver {gpus['driver']} of {name} runs CUDA {gpus['cuda']} at most, and "
        text += f"TensorFlow there needs CUDA {built}: update the driver"
        yield Finding(ERROR, "gpus", text, host=name)


def _major(version: str) -> int:
    return int(version.partition(".")[0])
