"""Lines of history.jsonl survive encoding; damaged ones are refused."""

import json

import pytest

from tenfold.launcher.job.events import (
    CheckpointSaved,
    Error,
    NotFinite,
    Phase,
    Started,
    Unknown,
)
from tenfold.launcher.job.history.history_line import (
    HistoryLine,
    LaunchBegun,
    Note,
    StepProgress,
    WorkerExit,
    decode_history,
    encode_history,
)


@pytest.mark.parametrize(
    "line",
    [
        HistoryLine(1.5, LaunchBegun(2, ("a", "b"))),
        HistoryLine(1.5, Note("restarting")),
        HistoryLine(1.5, Started(7), 1),
        HistoryLine(1.5, Phase(), 1, "build"),
        HistoryLine(1.5, StepProgress(3, total_steps=9, loss=0.5, waited_s=0.25), 0),
        HistoryLine(
            1.5, CheckpointSaved("run/checkpoints/x.npz", epoch=1, step=30), 0, "checkpoint"
        ),
        HistoryLine(1.5, NotFinite(7, 0, "loss", "fail", ("a record 3",), "x"), 1, "training"),
        HistoryLine(1.5, Error("ValueError", "no", "Traceback"), 1, "training"),
        HistoryLine(1.5, WorkerExit(-9, oom=True, peak_rss_bytes=100), 1),
    ],
)
def test_history_line_survives_encoding(line: HistoryLine) -> None:
    text = encode_history(line)
    assert text.count("\n") == 1
    assert decode_history(text) == line
    assert ("worker" in json.loads(text)) == (line.worker >= 0)


def test_unknown_kind_is_kept_as_unknown() -> None:
    assert decode_history('{"time": 1, "kind": "newer", "x": 2}').entry == Unknown("newer")


@pytest.mark.parametrize("text", ["", "[]", "3", '{"time": 1}', '{"time": 1, "kind": "exit"}'])
def test_damaged_history_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_history(text)
