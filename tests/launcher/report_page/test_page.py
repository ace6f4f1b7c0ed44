"""The report page: its arithmetic, its escaping, and the run directories that it reads."""

import fcntl
import html
import html.parser
import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.units import format_duration
from tenfold.launcher.job.events import NotFinite, Phase, Resumed, Started
from tenfold.launcher.job.history.history_line import (
    Entry,
    HistoryLine,
    LaunchBegun,
    Note,
    StepProgress,
    WorkerExit,
)
from tenfold.launcher.job.job_result import Failure, JobResult
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec, job_to_json
from tenfold.launcher.report_page.charts import ChartLine, is_drawable, line_chart
from tenfold.launcher.report_page.markup import tag
from tenfold.launcher.report_page.page import render_comparison, render_page
from tenfold.launcher.report_page.run_files import read_run
from tenfold.launcher.report_page.sections.sections_compare import differing_flags, run_names
from tenfold.launcher.report_page.sections.sections_outcome import even_columns
from tenfold.launcher.report_page.series import Series, percents, show, smooth, thin
from tenfold.launcher.report_page.timeline import (
    Restart,
    Span,
    build_timeline,
    find_not_finite,
    find_restarts,
)
from tenfold.models.train_config import TrainConfig

HOSTILE = "</pre></title><script>alert('x')</script><img src=http://example.com/x onerror=y>\"'&"


class Page(html.parser.HTMLParser):
    """Parser that checks that elements nest, and collects names, addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_job(run_dir: Path, *, text: str = "cnn", trains: bool = True) -> None:
    run_dir.mkdir(exist_ok=True)
    train = TrainConfig("/no/shards", str(run_dir), model=text) if trains else None
    spec = JobSpec(("python", text), 2, str(run_dir), env={"NAME": text}, train=train)
    cluster = ClusterSpec(("127.0.0.1:1", "127.0.0.1:2"))
    (run_dir / "job.json").write_text(job_to_json(spec, cluster), encoding="utf-8")


RECEIPT = {"records": 9, "expected": 10, "left_out": 1, "exact": True}


def metrics_line(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"kind": "step", "step": step, "epoch": 0, "loss": loss, "metrics": {"accuracy": 0.5},
            "records_per_s": 100.0, "wait_share": 0.25, **more}  # fmt: skip


# --- arithmetic ---


@given(st.lists(st.floats(-1e6, 1e6), max_size=5000))
def test_thin_keeps_extremes_in_order(values: list[float]) -> None:
    points = [(float(index), value) for index, value in enumerate(values)]
    kept = thin(points, max_points=100)
    assert len(kept) <= 102 or len(points) <= 102
    assert list(kept) == sorted(set(kept))
    assert set(kept) <= set(points)
    if values:
        assert {min(values), max(values)} <= {value for _, value in kept}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (300.0, "300"), (12345.6, "12,346"), (0.98765, "0.9877"), (math.nan, "nan"),
     (1e-7, "1e-07")],
)  # fmt: skip
def test_show_formats_figures(value: float, text: str) -> None:
    assert show(value) == text


@given(st.lists(st.floats(0, 1e6), max_size=8))
def test_percents_sum_to_100(values: list[float]) -> None:
    shares = percents(values)
    assert sum(shares) == (100 if sum(values) else 0)
    for share, value in zip(shares, values, strict=True):
        assert abs(share - 100 * value / (sum(values) or 1)) < 1 + 1e-9


@given(st.lists(st.floats(-1e3, 1e3), max_size=200))
def test_smooth_keeps_steps_and_ends_within_the_extremes(values: list[float]) -> None:
    points = [(float(index), value) for index, value in enumerate(values)]
    smoothed = smooth(points)
    assert [x for x, _ in smoothed] == [x for x, _ in points]
    if values:
        assert (smoothed[0], smoothed[-1]) == (points[0], points[-1])
        assert all(min(values) - 1e-6 <= y <= max(values) + 1e-6 for _, y in smoothed)
    if len(values) < 30:
        assert smoothed == tuple(points)


def test_smooth_keeps_a_straight_line_and_damps_a_spike() -> None:
    line = [(float(index), 2.0 * index) for index in range(300)]
    assert smooth(line) == tuple((x, pytest.approx(y)) for x, y in line)
    spike = smooth([(float(index), 100.0 * (index == 150)) for index in range(300)])
    assert 0 < max(y for _, y in spike) < 10


def test_chart_counts_infinite_and_nan_values() -> None:
    series = Series("each step", ((1.0, 0.5), (2.0, math.nan), (3.0, math.inf), (4.0, 0.5)))
    assert is_drawable([series])
    chart = line_chart("loss", [series])
    assert "2 values are infinite or not a number" in chart
    assert "nan" not in chart.split("</p>")[0].split("<svg")[1].split("</svg>")[0]


def test_one_finite_step_makes_no_chart() -> None:
    nan = Series("each step", ((1.0, 0.5), (2.0, math.nan)))
    assert not is_drawable([nan, Series("epoch", ((1.0, 3.0),), "dots")])
    assert not is_drawable([])
    assert is_drawable([nan, Series("epoch", ((2.0, 3.0),), "dots")])


def test_chart_shows_values_at_each_column() -> None:
    steps = tuple((float(step), step / 10) for step in range(1, 1001))
    chart = line_chart(
        "loss",
        [
            Series("each step", steps, "smoothed"),
            Series("epoch", tuple((x, 7.0) for x in (50.0, 100.0)), "dots"),
        ],
    )
    columns = [html.unescape(part) for part in chart.split('class="column"')[1:]]
    assert 40 <= len(columns) <= 60
    texts = [re.findall(r"<text[^>]*>([^<]*)</text>", column) for column in columns]
    by_step = {lines[0]: lines[1:] for lines in texts}
    assert by_step["step 50"] == ["each step 5", "epoch 7", "each step, smoothed 5"]
    assert by_step["step 1,000"] == ["each step 100", "each step, smoothed 100"]
    # the columns fill the chart without gaps or overlaps
    spans = [
        (float(x), float(x) + float(width))
        for x, width in re.findall(r'<rect x="([\d.]+)" y="10" width="([\d.]+)"', chart)
    ]
    assert spans[0][0] == 56
    assert spans[-1][1] == pytest.approx(468, abs=0.2)
    for (_, end), (begin, _) in pairwise(spans):
        assert end == pytest.approx(begin, abs=0.2)


def test_marks_outside_of_the_steps_are_left_out() -> None:
    series = Series("each step", ((10.0, 1.0), (20.0, 2.0)))
    marks = [
        ChartLine(15, "restart", "restarted"),
        ChartLine(5, "not finite", "the loss is not finite"),
    ]
    chart = line_chart("loss", [series], marks=marks)
    assert chart.count('class="mark restart"') == 1
    assert "<title>restarted</title>" in chart
    assert "not-finite" not in chart
    assert 'class="mark not-finite"' in line_chart(
        "loss", [series], marks=[ChartLine(10, "not finite", "")]
    )


@pytest.mark.parametrize(
    ("count", "most", "columns"),
    [(0, 7, 1), (1, 7, 1), (7, 7, 7), (8, 7, 4), (9, 7, 5), (10, 2, 2)],
)
def test_tiles_are_in_even_rows(count: int, most: int, columns: int) -> None:
    assert even_columns(count, most) == columns


def test_chart_of_finite_values_has_no_warning() -> None:
    assert "not a number" not in line_chart("loss", [Series("a", ((1.0, 0.5), (2.0, 1.0)))])


# --- time ---


def test_timeline_has_phases_restarts_and_waiting() -> None:
    events = [
        HistoryLine(5.0, LaunchBegun()),
        HistoryLine(5.0, Started(7), 0),  # of an earlier launch
        HistoryLine(10.0, LaunchBegun(1)),
        HistoryLine(10.0, Started(8), 0),
        HistoryLine(10.5, Phase(), 0, "import"),
        HistoryLine(12.0, Phase(), 0, "rendezvous"),
        HistoryLine(14.0, Phase(), 0, "training"),
        HistoryLine(15.0, StepProgress(7, waited_s=0.5, records_per_s=9.0), 0),
        HistoryLine(20.0, WorkerExit(-9, peak_rss_bytes=100), 0),
        HistoryLine(20.1, Note("starting again")),
        HistoryLine(21.0, Started(9), 0),
        HistoryLine(22.0, Phase(), 0, "training"),
        HistoryLine(23.0, StepProgress(8, waited_s=0.25), 0),
    ]
    timeline = build_timeline(events, now=30.0)
    assert timeline is not None
    assert (timeline.begin, timeline.end, timeline.launches) == (10.0, 30.0, 2)
    (worker,) = timeline.workers
    assert worker.spans == (
        Span("starting", 10.0, 14.0),
        Span("training", 14.0, 20.0),
        Span("training", 21.0, 30.0),
    )
    assert worker.seconds() == {"starting": 4.0, "training": 15.0}
    assert (worker.waited_s, worker.step, worker.starts) == (0.75, 8, 2)
    assert [(mark.worker, mark.text) for mark in timeline.marks] == [
        (0, "exited with -9"),
        (-1, "starting again"),
    ]


def test_restarts_are_at_the_step_of_their_checkpoint() -> None:
    entries: list[tuple[Entry, int]] = [
        (LaunchBegun(2), -1), (Started(7), 0), (Started(8), 1), (StepProgress(5), 0),
        (StepProgress(9), 0), (Started(9), 0), (Resumed(6), 1), (Resumed(6), 0),
        (StepProgress(7), 0), (Started(10), 0), (StepProgress(1), 0), (StepProgress(2), 0),
        (LaunchBegun(2), -1), (Started(11), 0), (Resumed(2), 0), (StepProgress(3), 0),
    ]  # fmt: skip
    events = [HistoryLine(float(i), entry, worker) for i, (entry, worker) in enumerate(entries)]
    assert find_restarts(events) == (
        Restart(6, "restarted: training continues after step 6"),
        Restart(0, "restarted: training begins again"),
        Restart(2, "launched again: training continues after step 2"),
    )
    assert find_restarts(events[:5]) == ()


def test_not_finite_is_the_first_of_the_last_launch() -> None:
    first, second = NotFinite(3, 0, "loss", "ignore"), NotFinite(5, 0, "weights", "ignore")
    events = [
        HistoryLine(1.0, LaunchBegun(2)),
        HistoryLine(2.0, first, 0),
        HistoryLine(2.5, second, 1),
    ]
    assert find_not_finite(events) == first
    assert find_not_finite([*events, HistoryLine(3.0, LaunchBegun(2))]) is None


def test_timeline_is_none_without_history() -> None:
    assert build_timeline([], now=1.0) is None


# time, kind and further fields of a line of history.jsonl
LineParts = tuple[float, str, dict[str, Any]]

WAIT, JOINT = "waiting for input", "training (compute, summing gradients)"
SUM = "communication (summing gradients)"

# communication of each epoch (None: an old file), seconds waited -> the parts of 20 s training
PARTS: list[tuple[list[float | None], float, dict[str, float]]] = [
    ([0.25], 2.0, {"computing": 13.0, SUM: 5.0, WAIT: 2.0}),
    ([0.9, 0.2, 0.3], 2.0, {"computing": 13.0, SUM: 5.0, WAIT: 2.0}),  # epoch 1 compiles
    ([1.0], 2.0, {"computing": 0.0, SUM: 18.0, WAIT: 2.0}),  # at most the time without waiting
    ([0.5], 99.0, {"computing": 0.0, SUM: 0.0, WAIT: 20.0}),
    ([0.0, 0.0], 2.0, {JOINT: 18.0, WAIT: 2.0}),  # one worker: nothing to sum
    ([None], 2.0, {JOINT: 18.0, WAIT: 2.0}),
    ([], 2.0, {JOINT: 18.0, WAIT: 2.0}),
]


@pytest.mark.parametrize(("epochs", "waited_s", "expected"), PARTS)
def test_communication_is_split_from_training_if_measured(
    tmp_path: Path, epochs: list[float | None], waited_s: float, expected: dict[str, float]
) -> None:
    write_job(tmp_path)
    events: list[LineParts] = [
        (100.0, "launch", {}),
        (100.0, "started", {"worker": 0, "pid": 7}),
        (100.0, "phase", {"worker": 0, "phase": "build"}),
        (110.0, "step", {"worker": 0, "step": 20, "waited_s": 7.0}),  # of building
        (110.0, "phase", {"worker": 0, "phase": "training"}),
        (120.0, "step", {"worker": 0, "step": 25, "waited_s": waited_s}),
        (130.0, "exit", {"worker": 0, "code": 0}),
    ]
    write_events(tmp_path, events)
    lines = [epoch_line(10, 0.99)]  # of an earlier launch, not counted
    lines += [epoch_line(30 + 10 * index, share) for index, share in enumerate(epochs)]
    write_lines(tmp_path / "metrics.jsonl", lines)
    text = render_page(read_run(tmp_path))
    bar = text.partition("time of worker 0 by activity")[2].partition("</svg>")[0]
    tooltips = [html.unescape(part.split("</title>")[0]) for part in bar.split("<title>")[1:]]
    whole = {"building (model, compilation of the first step)": 10.0, **expected}
    assert tooltips == [f"{name}: {format_duration(seconds)}" for name, seconds in whole.items()]
    assert sum(whole.values()) == 30.0
    assert ("Communication is an estimate" in text) == (SUM in expected)


def epoch_line(step: int, communication: float | None) -> dict[str, Any]:
    more = {} if communication is None else {"bottleneck": {"communication": communication}}
    return metrics_line(step, 1.0, kind="epoch", receipt=RECEIPT, **more)


def write_events(run_dir: Path, events: list[LineParts]) -> None:
    lines = [{"time": time, "kind": kind, **more} for time, kind, more in events]
    write_lines(run_dir / "history.jsonl", lines)


# the job, the rates that workers 0 to 2 reported -> the rates shown for them
RATES = [
    (True, (900.0, 930.0, 960.0), ["450", "465", "320"]),
    (
        False,
        (900.0, 930.0, 960.0),
        ["900", "930", "960"],
    ),  # a program reports the rate of its worker
]


@pytest.mark.parametrize(("trains", "rates", "shown"), RATES)
def test_worker_rate_is_its_part_of_the_job_rate(
    tmp_path: Path, trains: bool, rates: tuple[float, ...], shown: list[str]
) -> None:
    write_job(tmp_path, trains=trains)
    started: list[LineParts] = [
        (0.0, "started", {"worker": index, "pid": 7}) for index in (1, 2, 0)
    ]
    steps: list[LineParts] = [
        (1.0, "step", {"worker": index, "step": 1, "records_per_s": rate})
        for index, rate in enumerate(rates)
    ]
    exits: list[LineParts] = [(2.0, "exit", {"worker": index, "code": 0}) for index in (1, 2, 0)]
    again = [started[0], started[2], *steps[:2]]  # then with two of them
    write_events(tmp_path, [(0.0, "launch", {}), *started, *steps, *exits, *again])
    text = render_page(read_run(tmp_path))
    table = text.partition("records/s of this worker")[2].partition("</table>")[0]
    rows = [re.findall(r">([^<]*)</td>", row) for row in table.split("<tr>")[1:]]
    assert [row[3] for row in rows] == shown


def test_charts_of_a_program_show_what_it_reports(tmp_path: Path) -> None:
    write_job(tmp_path, trains=False)
    reports: list[LineParts] = [
        (float(step), "step", {"worker": worker, "step": step, "loss": 1 / step})
        for step in (1, 2, 3, 2, 3, 4)
        for worker in range(6)
    ]
    write_events(tmp_path, [(0.0, "launch", {}), *reports])
    text = render_page(read_run(tmp_path))
    assert "Reports by step" in text
    assert text.count("<figure>") == 1
    assert "worker 3 0.25" in text
    assert "worker 4 0.25" not in text
    write_events(tmp_path, [(0.0, "launch", {}), reports[0]])
    assert "Reports by step" not in render_page(read_run(tmp_path))


# --- reading and writing ---


@given(st.text(), st.text())
def test_text_that_is_not_markup_is_escaped(text: str, attribute: str) -> None:
    made = tag("p", text, title=attribute)
    inner = made[len("<p title=") : -len("</p>")]
    assert "<" not in inner
    assert inner.count('"') == 2
    assert inner.count(">") == 1


def test_texts_of_a_hostile_run_are_escaped(tmp_path: Path) -> None:
    run_dir = tmp_path / "a'<b>"
    write_job(run_dir, text=HOSTILE)
    receipt = {**RECEIPT, "fingerprint": HOSTILE}
    write_lines(
        run_dir / "metrics.jsonl",
        [
            metrics_line(1, 2.0, metrics={HOSTILE: 1.0}),
            metrics_line(2, 1.0, kind="epoch", receipt=receipt),
        ],
    )
    failure = Failure(0, 1.0, HOSTILE, 2, 1, HOSTILE, HOSTILE)
    result = JobResult("failed", (1, 75), 0, failure, (failure,), reason=HOSTILE)
    (run_dir / "result.json").write_text(result.to_json())
    events: list[dict[str, Any]] = [{"kind": "launch"}]
    events.append({"kind": "error", "worker": 0, "type": HOSTILE})
    events.append({"kind": "note", "text": HOSTILE})
    write_lines(run_dir / "history.jsonl", [{"time": 1.0, **event} for event in events])
    (run_dir / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE, "launched": HOSTILE}))
    (run_dir / "logs").mkdir()
    page = Page(render_page(read_run(run_dir)))
    assert not page.names & {"script", "img", "iframe", "object"}
    assert all(address == "data:," for address in page.addresses)
    assert any(HOSTILE in text for text in page.text)


def test_page_of_a_run_without_metrics(tmp_path: Path) -> None:
    write_job(tmp_path)
    run = read_run(tmp_path)
    assert run.state == "ended without a result"
    Page(render_page(run))


def test_damaged_lines_are_counted(tmp_path: Path) -> None:
    write_job(tmp_path)
    good = json.dumps(metrics_line(1, 2.0))
    bad = ["{", "[]", "3", '{"step": 1}', '{"step": "x", "epoch": 0}', "\x00"]
    text = "\n".join([good, *bad, good]) + "\n" + good[:20]  # the last line is being written
    (tmp_path / "metrics.jsonl").write_text(text)
    run = read_run(tmp_path)
    assert (len(run.steps), run.damaged) == (2, len(bad))
    assert f"{len(bad)} lines of metrics.jsonl and history.jsonl could not be read" in render_page(
        run
    )


def test_inexact_receipt_is_reported(tmp_path: Path) -> None:
    write_job(tmp_path)
    receipt = {"records": 9, "expected": 10, "left_out": 0, "exact": False}
    line = metrics_line(3, 1.0, kind="epoch", receipt=receipt)
    write_lines(tmp_path / "metrics.jsonl", [line])
    assert "Some records were not read exactly once in epoch 1:" in render_page(read_run(tmp_path))


def test_records_read_again_are_counted(tmp_path: Path) -> None:
    write_job(tmp_path)
    receipt = {**RECEIPT, "left_out": 0, "records": 10, "repeated": 4711}
    line = metrics_line(3, 1.0, kind="epoch", receipt=receipt)
    write_lines(tmp_path / "metrics.jsonl", [line])
    text = render_page(read_run(tmp_path))
    assert "read again" in text
    assert "4,711" in text


def test_page_of_a_locked_run_dir_reloads_itself(tmp_path: Path) -> None:
    write_job(tmp_path)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = read_run(tmp_path)
        assert run.state == "running"
        assert 'http-equiv="refresh" content="5"' in render_page(run, refresh_s=5)
        assert 'http-equiv="refresh"' not in render_page(run)
    run = read_run(tmp_path)
    assert run.state == "ended without a result"
    assert 'http-equiv="refresh"' not in render_page(run, refresh_s=5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "has no job.json"),
        (lambda path: (path / "job.json").write_text("{}"), "is not a job file"),
        (lambda path: path.rmdir(), "there is no folder"),
    ],
)
def test_folder_that_is_no_run_dir_is_refused(tmp_path: Path, make: Any, words: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    make(folder)
    with pytest.raises(UserError, match=words):
        read_run(folder)


def test_report_command_writes_one_file_and_prints_its_path(tenfold: Any, tmp_path: Path) -> None:
    write_job(tmp_path)
    done = tenfold("report", tmp_path)
    assert (done.status, done.out) == (0, f"{tmp_path / 'report.html'}\n")
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert tenfold("report").status == 2
    nowhere = tenfold("report", tmp_path, "--output=/nonexistent/page.html")
    assert nowhere.status == 2
    assert "give another --output" in nowhere.err


def test_comparison_shows_the_flags_that_differ(tmp_path: Path) -> None:
    runs = []
    for folder, model in (("a", "cnn"), ("b", HOSTILE)):
        (tmp_path / folder).mkdir()
        run_dir = tmp_path / folder / "run"
        write_job(run_dir, text=model)
        write_lines(run_dir / "metrics.jsonl", [metrics_line(1, 2.0), metrics_line(2, math.nan)])
        runs.append(read_run(run_dir))
    assert run_names(runs) == [str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")]
    assert differing_flags(runs) == {"model": ["cnn", HOSTILE], "NAME": ["cnn", HOSTILE]}
    assert differing_flags(runs[:1] * 2) == {}
    page = Page(render_comparison(runs))
    assert HOSTILE in page.text
    assert page.names.isdisjoint({"script", "img"})
