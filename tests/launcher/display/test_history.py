"""history.jsonl and environment.json, which a launch writes for the report."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.display.history import HistoryView, StepLines
from tenfold.launcher.display.plain import PlainView
from tenfold.launcher.job.environment_file import describe_environment
from tenfold.launcher.job.events import Phase, Stat, Step, WorkerEvent
from tenfold.launcher.job.job_result import Failure, JobResult, Recovery, result_from_json


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_thinned_steps_keep_all_waiting_and_exchanging() -> None:
    lines = StepLines()
    waited = exchanged = 0.0
    for step in range(1, 41):  # ten a second, half of the time waiting for input
        line = lines.take(0, Step(step, wait_share=0.5, exchange_share=0.25), 100 + step / 10)
        waited += line.waited_s if line else 0.0
        exchanged += (line.exchanged_s or 0.0) if line else 0.0
    last = lines.finish(0, 104.05)
    assert last is not None
    assert last.step == 40
    assert waited + last.waited_s == pytest.approx(0.5 * 3.9)
    assert exchanged + (last.exchanged_s or 0.0) == pytest.approx(0.25 * 3.9)
    assert lines.finish(0, 105) is None


def test_pause_between_phases_does_not_count_as_waiting() -> None:
    lines = StepLines()
    lines.take(0, Step(1, wait_share=1.0), 10)
    lines.finish(0, 11)
    lines.finish(0, 50)  # evaluation ends
    line = lines.take(0, Step(2, wait_share=1.0), 51)
    assert line is not None
    assert line.waited_s == pytest.approx(1)


def test_event_fields_cannot_replace_history_fields(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    view = HistoryView(PlainView(io.StringIO()), path, hosts=["a", "b"])
    view.event(1, WorkerEvent(1, "build", Phase()))
    view.event(1, WorkerEvent(7, "build", Phase(), time=0.0))
    view.event(1, WorkerEvent(1, "", Stat("S", rss_bytes=1)))
    view.note("starting again")
    view.close()
    launch, first, second, note = lines_of(path)
    assert (launch["kind"], launch["hosts"]) == ("launch", ["a", "b"])
    assert (first["kind"], first["worker"], first["phase"]) == ("phase", 1, "build")
    assert (second["kind"], second["worker"]) == ("phase", 1)
    assert (note["kind"], note["text"]) == ("note", "starting again")


def test_launch_writes_history_and_environment(tenfold: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = ["--num_workers=2", f"--run_dir={run_dir}", "--", "sh", "-c", "sleep 0.1; exit 0"]
    done = tenfold("launch", *arguments)
    assert done.status == 0, done.err
    history = lines_of(run_dir / "history.jsonl")
    for kind in ("started", "exit"):
        workers = sorted(line["worker"] for line in history if line["kind"] == kind)
        assert workers == [0, 1], kind
    assert [line["time"] for line in history] == sorted(line["time"] for line in history)
    written = json.loads((run_dir / "environment.json").read_text())
    assert written["packages"] == describe_environment()["packages"]
    assert written["packages"].keys() >= {"tenfold", "tensorflow", "keras"}
    metrics = (run_dir / "metrics.prom").read_text()
    assert f'tenfold_job_state{{run="{run_dir}",state="succeeded"}} 1.0' in metrics
    assert result_from_json((run_dir / "result.json").read_text(), where="").goodput is None


def test_result_survives_a_round_trip() -> None:
    failure = Failure(1, 5.0, "training", 3, -9, "killed by SIGKILL", "a\nb")
    result = JobResult(
        state="failed",
        exit_codes=(0, -9, None),
        restarts=1,
        first_failure=failure,
        consequences=(Failure(0, 6.0, "training", None, 75, "peer"),),
        recoveries=(Recovery(failure, False, 2, 1.5),),
        notes=("a note",),
    )
    assert result_from_json(result.to_json(), where="result.json") == result


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"first_failure": 3}'])
def test_damaged_result_is_a_user_error(text: str) -> None:
    with pytest.raises(UserError, match=r"result\.json is not a job's result"):
        result_from_json(text, where="result.json")
