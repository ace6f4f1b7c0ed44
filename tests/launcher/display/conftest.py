"""Records of workers that have reported given events."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tenfold.launcher.job.events import MARK, WorkerEvent, decode_event
from tenfold.launcher.job.worker_record import WorkerRecord


def decoded(kind: str, index: int, data: dict[str, Any]) -> WorkerEvent:
    phase = data.get("phase", "")
    document = {"kind": kind, "worker": index, "phase": phase, "time": 1.0, "data": data}
    return decode_event(MARK + json.dumps(document))


@pytest.fixture(scope="session")
def worker() -> Callable[..., WorkerRecord]:
    """Make the record of worker `index` that has reported events of these kinds, in this order."""

    def make(index: int = 1, *, now: float = 100.0, **events: dict[str, Any]) -> WorkerRecord:
        record = WorkerRecord(index)
        for kind, data in events.items():
            record.take_event(decoded(kind, index, data), now=now)
        return record

    return make
