"""One attempt, without processes: what a test with processes meets once in a thousand times."""

from typing import Any

from tenfold.launcher.attempt import Attempt
from tenfold.launcher.signals import StopRequest
from tenfold.launcher.watchdog import WatchPolicy


class Gang:
    """Workers that take note of how they are stopped, and end when they are killed."""

    def __init__(self) -> None:
        self.graces: list[float] = []

    @property
    def running(self) -> tuple[int, ...]:
        return () if 0.0 in self.graces else (0,)

    def poll(self, timeout_s: float) -> tuple[()]:
        assert len(self.graces) < 10, "the second request was lost"
        return ()

    def stop(self, grace_s: float) -> None:
        self.graces.append(grace_s)


class View:
    """Asks to stop once more as soon as it has read of the first request."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop
        self.ticks = 0

    def note(self, text: str) -> None:
        if "once more" in text:
            self.stop._on_signal(2, None)

    def tick(self, records: Any) -> None:
        self.ticks += 1
        assert self.ticks < 100, "the second request was lost"


def attempt(stop: StopRequest, gang: Gang) -> Attempt:
    return Attempt(
        gang=gang,  # type: ignore[arg-type]
        records=(),
        view=View(stop),  # type: ignore[arg-type]
        logs=None,  # type: ignore[arg-type]
        stop=stop,
        watch=WatchPolicy(),
        grace_s=600.0,
        failure_grace_s=0.0,
    )


def test_a_second_request_is_obeyed_however_soon_it_comes() -> None:
    stop, gang = StopRequest(), Gang()
    stop._on_signal(2, None)
    attempt(stop, gang).run()
    assert gang.graces == [600.0, 0.0]


def test_two_requests_at_once_do_not_wait() -> None:
    stop, gang = StopRequest(), Gang()
    stop._on_signal(2, None)
    stop._on_signal(2, None)
    attempt(stop, gang).run()
    assert gang.graces == [0.0]
