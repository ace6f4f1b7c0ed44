"""Events between workers and supervisor: their JSON, and lines that hold none."""

import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenfold.launcher.job.events import (
    MARK,
    MESSAGES,
    CheckpointSaved,
    Epoch,
    Error,
    EventWriter,
    Exit,
    MalformedEvent,
    Message,
    NotFinite,
    Phase,
    Result,
    Resumed,
    Started,
    Stat,
    Step,
    Unknown,
    WorkerEvent,
    WorkerPreempted,
    decode_event,
    encode_event,
    split_output,
)
from tenfold.launcher.job.worker_record import WorkerRecord, failure_text

_FLOATS = st.floats(allow_nan=False)
_MAYBE = st.none() | _FLOATS
_JSON = st.none() | st.booleans() | st.integers() | _FLOATS | st.text()

MESSAGE: "st.SearchStrategy[Message]" = st.one_of(
    st.builds(Started, st.integers()),
    st.builds(
        Stat,
        st.text(),
        rss_bytes=st.integers(),
        cpu_s=_FLOATS,
        listening=st.booleans(),
        links_down=st.lists(st.text()).map(tuple),
    ),
    st.builds(Exit, st.integers(), oom=st.booleans(), by_us=st.booleans()),
    st.just(Phase()),
    st.builds(Resumed, st.integers(), epoch=st.integers()),
    st.builds(
        Step,
        st.integers(),
        epoch=st.none() | st.integers(),
        total_steps=st.none() | st.integers(),
        loss=_MAYBE,
        records_per_s=_MAYBE,
        wait_share=_MAYBE,
        exchange_share=_MAYBE,
    ),
    st.builds(
        Epoch,
        epoch=st.integers(),
        epochs=st.none() | st.integers(),
        loss=_MAYBE,
        metrics=st.dictionaries(st.text(), _FLOATS, min_size=1),
        records_per_s=_MAYBE,
        sentences=st.lists(st.text()).map(tuple),
    ),
    st.builds(CheckpointSaved, st.text(), epoch=st.integers(), step=st.integers()),
    st.builds(
        NotFinite,
        st.integers(),
        st.integers(),
        st.text(),
        st.text(),
        records=st.lists(st.text()).map(tuple),
        kept_step=st.none() | st.integers(),
    ),
    st.builds(Error, st.text(), st.text(), st.text()),
    st.just(WorkerPreempted()),
    st.builds(Result, st.dictionaries(st.text(), _JSON)),
)


@given(MESSAGE, st.text(), st.integers(0, 99))
def test_events_survive_encoding(message: Message, phase: str, index: int) -> None:
    event = WorkerEvent(index, phase, message, 1.5)
    line = encode_event(event)
    assert "\n" not in line
    assert decode_event(line) == event
    assert split_output("printed" + line) == ("printed", event)


_KEYS = st.sampled_from(["kind", "worker", "phase", "time", "data", "step", "code", "other"])
_DOCUMENTS = st.dictionaries(_KEYS, _JSON | st.lists(_JSON) | st.dictionaries(_KEYS, _JSON))
_ENVELOPES = st.builds(
    lambda kind, data: {"kind": kind, "worker": 0, "phase": "", "data": data},
    st.sampled_from([*MESSAGES, "newer"]),
    st.dictionaries(st.text() | _KEYS, _JSON | st.lists(_JSON)),
)


@given(st.text(), (st.text() | (_DOCUMENTS | _ENVELOPES).map(json.dumps)))
@example("", '{"kind": "step", "worker": [], "phase": null, "data": []}')
@example("", '{"kind": "step", "worker": 0, "phase": "", "data": {"step": 1, "loss": 1e999}}')
def test_any_line_can_be_read(printed: str, line: str) -> None:
    text, event = split_output(printed.replace(MARK, "") + MARK + line)
    record = WorkerRecord(0)
    if text is not None:
        record.take_line(text, 1.0)
    if event is not None:
        record.take_event(event, 1.0)
    assert record.agent_at == (1.0 if text is not None or event is not None else 0.0)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("exit", {}),
        ("exit", {"code": "none"}),
        ("exit", {"code": True}),
        ("started", {"pid": None}),
        ("stat", {"state": "S", "links_down": "eth0"}),
        ("step", {}),
        ("step", {"step": "five"}),
        ("step", []),
        ("error", {"message": 7}),
    ],
)
def test_malformed_event_is_log_text(kind: str, data: Any) -> None:
    line = json.dumps({"kind": kind, "worker": 0, "phase": "", "data": data})
    with pytest.raises(MalformedEvent):
        decode_event(MARK + line)
    assert split_output(MARK + line) == (line, None)


def test_unknown_kind_shows_life_but_changes_nothing() -> None:
    line = MARK + json.dumps({"kind": "newer", "worker": 0, "phase": "x", "extra": 1})
    text, event = split_output(line)
    assert text is None
    assert event is not None
    assert event.message == Unknown("newer")
    record = WorkerRecord(0)
    record.take_event(event, 5.0)
    assert record == WorkerRecord(0, agent_at=5.0, heard_at=5.0, traceback=record.traceback)


def test_step_figures_of_other_types_are_dropped() -> None:
    data = {"step": 3, "loss": "none yet", "total_steps": 2.5, "records_per_s": None}
    line = json.dumps({"kind": "step", "worker": 0, "phase": "", "data": data})
    assert decode_event(line).message == Step(3)


def test_writer_sends_events_in_the_current_phase() -> None:
    stream = io.StringIO()
    writer = EventWriter(stream, 2)
    writer.enter("build")
    writer.send(Step(1))
    first, second = map(decode_event, stream.getvalue().split("\n")[:-1])
    assert (first.worker, first.phase, first.message) == (2, "build", Phase())
    assert (second.phase, second.message) == ("build", Step(1))


def test_record_keeps_the_first_error() -> None:
    record = WorkerRecord(0)
    for number, message in enumerate(("first", "second")):
        record.take_event(WorkerEvent(0, "", Error("ValueError", message)), float(number))
    assert failure_text(record) == ("ValueError: first", "")
    assert record.error_time == 0.0
