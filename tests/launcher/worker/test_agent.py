"""The agent: whole lines, and its wait for the supervisor's heartbeats."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.launcher.worker import agent
from tenfold.launcher.worker.agent import LineBuffer


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.data())
def test_lines_stay_whole_however_reads_cut_them(lines, data):
    text = b"".join(line + b"\n" for line in lines)
    buffer, seen = LineBuffer(), []
    while text:
        cut = data.draw(st.integers(1, len(text)))
        seen += buffer.feed(text[:cut])
        text = text[cut:]
    assert seen == [line + b"\n" for line in lines]
    assert buffer.flush() == []


@pytest.fixture
def waiting_agent(monkeypatch: pytest.MonkeyPatch, clock: Any) -> Iterator[Any]:
    """An agent that waits for the supervisor for 10 seconds of `clock`."""
    monkeypatch.setattr(agent, "time", clock)
    with open(os.devnull, "r+b") as nothing:
        waiting: Any = agent.Agent(nothing.fileno(), nothing.fileno())
        waiting._spec = {"worker": 0, "heartbeat_timeout_s": 10}
        yield waiting


def test_heartbeat_timeout_does_not_count_suspension(waiting_agent: Any, clock: Any) -> None:
    waiting_agent._tick()
    clock.now += 3600.0
    waiting_agent._tick()
    assert not waiting_agent._is_stopping
    for _ in range(10):
        clock.now += 1.0
        waiting_agent._tick()
    assert waiting_agent._is_stopping
