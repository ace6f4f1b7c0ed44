"""Errors that only report a lost peer, told from a worker's own."""

import pytest

from tenfold.launcher.job.error_texts.peer_errors import is_peer_error, reports_lost_peer


@pytest.mark.parametrize(
    ("name", "message", "is_peer"),
    [
        ("UnavailableError", "anything", True),
        ("AbortedError", "", True),
        ("InternalError", "Connection reset by peer", True),
        ("UnknownError", "device /job:worker/replica:0/task:1", True),
        ("InternalError", "out of memory", False),
        ("InvalidArgumentError", "on /job:worker/replica:0/task:1", False),
        ("ValueError", "Connection reset by peer", False),
    ],
)
def test_exceptions_of_peers(name: str, message: str, is_peer: bool) -> None:
    error = type(name, (Exception,), {})(message)
    assert is_peer_error(error) == is_peer


@pytest.mark.parametrize(
    ("text", "is_peer"),
    [
        ("UnavailableError: Socket closed", True),
        ("F tasks are unhealthy: task 1", True),
        ("coordination service agent is in error", True),
        ("ValueError: no\n  on /job:worker/replica:0/task:0", False),
        ("free(): invalid pointer", False),
    ],
)
def test_output_that_reports_a_lost_peer(text: str, is_peer: bool) -> None:
    assert reports_lost_peer(text) == is_peer
