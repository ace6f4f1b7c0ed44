"""metrics.prom: the format that Prometheus reads, and the figures of a job in it."""

import io
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.launcher.display.history import HistoryView
from tenfold.launcher.display.plain import PlainView
from tenfold.launcher.display.prometheus.metrics_file import MetricsFileView
from tenfold.launcher.display.prometheus.open_metrics import Gauge, open_metrics_text
from tenfold.launcher.job.events import Epoch, Phase, Started, Step, WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord

LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def parsed(text: str) -> list[tuple[str, dict[str, str], float]]:
    """Parse samples strictly by the grammar of OpenMetrics, as far as it is used."""
    assert text.endswith("# EOF\n")
    samples = []
    for line in text.removesuffix("# EOF\n").split("\n")[:-1]:
        if re.fullmatch(r"# (TYPE \w+ gauge|HELP \w+ [^\n]+)", line):
            continue
        shape = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        assert shape, line
        name, inner, value = shape.groups()
        labels, end = {}, 0
        for match in LABEL.finditer(inner or ""):
            assert match.start() == end, line
            end = match.end()
            labels[match[1]] = re.sub(
                r"\\(.)", lambda escape: {"n": "\n"}.get(escape[1], escape[1]), match[2]
            )
        assert end == len(inner or ""), line
        samples.append((name, labels, float(value)))
    return samples


@given(st.text(), st.floats())
def test_labels_and_values_survive_the_format(label: str, value: float) -> None:
    text = open_metrics_text(
        [Gauge("a_b", "Some\nhelp.", (({"x": label}, value), ({}, 1.0))), Gauge("none", "", ())],
        labels={"run": label[::-1]},
    )
    first, second = parsed(text)
    assert first[:2] == ("a_b", {"run": label[::-1], "x": label})
    assert first[2] == value or (math.isnan(first[2]) and math.isnan(value))
    assert second == ("a_b", {"run": label[::-1]}, 1.0)
    assert "none" not in text


def test_file_follows_the_job_and_its_failure_is_noted_once(tmp_path: Path) -> None:
    screen = io.StringIO()
    history = HistoryView(PlainView(screen), tmp_path / "history.jsonl", hosts=["a"])
    path = tmp_path / "metrics.prom"
    view = MetricsFileView(history, path, run_dir='/r"un')
    records = (WorkerRecord(0),)
    for phase, message in (
        ("", Started(1)), ("build", Phase()), ("build", Step(5, total_steps=20, loss=0.5)),
        ("training", Phase()), ("training", Epoch(0, 2, 0.25, {"accuracy": math.nan})),
        ("", Started(1)),
    ):  # fmt: skip
        event = WorkerEvent(0, phase, message)
        records[0].take_event(event, 1.0)
        view.event(0, event)
    view.tick(records)

    def samples() -> dict[tuple[str, ...], float]:
        found = parsed(path.read_text())
        assert all(labels.pop("run") == '/r"un' for _, labels, _ in found)
        return {(name, *labels.values()): value for name, labels, value in found}

    running = samples()
    assert running["tenfold_job_state", "running"] == 1
    assert running["tenfold_job_step",] == 5
    assert running["tenfold_job_restarts",] == 1
    assert running["tenfold_job_epoch_metric", "loss"] == 0.25
    assert math.isnan(running["tenfold_job_epoch_metric", "accuracy"])
    assert "tenfold_job_records_per_second" not in path.read_text()

    goodput = view.finish("failed", 12.5)
    assert goodput is not None
    ended = samples()
    assert (ended["tenfold_job_state", "running"], ended["tenfold_job_state", "failed"]) == (0, 1)
    times = [v for k, v in ended.items() if k[0] == "tenfold_job_time_seconds"]
    assert sum(times) == pytest.approx(12.5)

    path.unlink()
    path.mkdir()
    view.finish("failed", 1.0)
    view.finish("failed", 1.0)
    assert screen.getvalue().count("metrics.prom is not kept up to date") == 1
    view.close()
