"""Errors by which a worker only reports that it has lost a peer. Pure.

When one worker of a MultiWorkerMirroredStrategy fails, TensorFlow raises errors in all others,
or aborts them. These tables tell such errors from those of the worker itself. They hold the
error types and texts of TensorFlow 2.21.
"""

import re
from typing import Final

# Exception types that a dead or silent peer raises; in a step nothing else does.
_ALWAYS_PEER: Final = frozenset({"UnavailableError", "DeadlineExceededError", "AbortedError"})

# Exception types that have other causes too: the message decides.
_SOMETIMES_PEER: Final = frozenset({"InternalError", "CancelledError", "UnknownError"})
_PEER_WORDS: Final = ("Connection reset", "collective", "Collective", "/job:worker", "heartbeat")

# BlobFile of a worker's last output. Narrower than the words above: `/job:worker` stands in many
# errors that are the program's own.
_PEER_TEXT: Final = re.compile(
    r"UnavailableError|DeadlineExceededError|Connection reset by peer|Connection refused|"
    r"Socket closed|failed to connect to all addresses|coordination.?service|"
    r"Collective ops is aborted|heartbeat timeout|tasks are unhealthy|unhealthy tasks|"
    r"Barrier failed|Peer .*(unreachable|restarted)",
    re.IGNORECASE,
)


def is_peer_error(error: BaseException) -> bool:
    """Whether TensorFlow raised `error`, caught in this process, because a peer has failed."""
    name = type(error).__name__
    if name in _ALWAYS_PEER:
        return True
    return name in _SOMETIMES_PEER and any(word in str(error) for word in _PEER_WORDS)


def reports_lost_peer(text: str) -> bool:
    """Whether the last output of a worker, or its traceback, reports a lost peer."""
    return bool(_PEER_TEXT.search(text))
