"""The aiohttp trace that takes responses out of gcsfs's hands.

gcsfs repeats failed requests by itself: six times, up to 17 s apart, each failure logged with a
traceback. Its loop has no budget, so the trace ends it: it sees every response before gcsfs does
and raises what the response means.

gcsfs also joins the whole body of a response in memory, which takes more processor time than
receiving it. So the trace passes a large body on in the blocks in which it arrives, and leaves an
empty one to gcsfs.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from tenfold.data.storage.retry import TransientError


@dataclass(frozen=True)
class Answer:
    """A response of the server with status 2xx, 404, 412 or 416; every other one is raised."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Parse the body as a JSON object.

        Raises:
          TransientError: it is none: the body was damaged on the way.
        """
        try:
            document = json.loads(self.body)
        except ValueError as error:
            raise TransientError(f"the answer is no JSON: {self.body[:80]!r}") from error
        if not isinstance(document, dict):
            raise TransientError(f"the answer is no JSON object: {self.body[:80]!r}")
        return document


class FailedResponse(Exception):
    """A response that gcsfs must not see: it would repeat the request, or log a traceback."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class ReceiverFailed(Exception):
    """The receiver of a body has failed with `error`, as on a full disk."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class UntrustedServer(Exception):
    """The server's certificate is not trusted: no retry changes that."""


# Exceptions of a request that the trace has raised itself.
_RAISED: Final = (FailedResponse, ReceiverFailed, TransientError)


class Exchange:
    """One request in the event loop's thread, between the trace and the body that is sent.

    `receive` is that of `gcs_client.GcsClient.request`.
    """

    def __init__(self, receive: "Receive | None") -> None:
        self.receive = receive
        self.task: asyncio.Task[Any] | None = None
        self.is_stalled = False

    def give_up(self) -> None:
        """Cancel the request: the server has stopped reading its body."""
        self.is_stalled = True
        if self.task is not None:
            self.task.cancel()


# Is called with the headers of a successful answer; returns what takes the blocks of its body.
Receive = Callable[[Mapping[str, str]], Callable[[bytes], object]]

# fsspec starts the request in its own thread with a copy of the caller's context.
current_exchange: ContextVar[Exchange] = ContextVar("current_exchange")


def describe_error(error: BaseException) -> str:
    """Return a broken connection's failure in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"timed out: {text}" if isinstance(error, asyncio.TimeoutError) else text


async def _pass_on(response: Any, receive: Receive) -> None:
    """Pass the body on in the blocks in which it arrives.

    Raises:
      ReceiverFailed: the receiver has failed; errors of the network pass unchanged.
    """
    take: Callable[[bytes], object] | None = None
    while block := await response.content.readany():
        try:
            take = take or receive(response.headers)
            take(block)
        except Exception as error:
            response.close()
            raise ReceiverFailed(error) from error


def response_trace() -> Any:
    """Return the aiohttp trace that takes every failure out of gcsfs's hands.

    All three callbacks run in the event loop's thread, in the task of the request.
    """
    import aiohttp

    async def on_start(_: Any, __: Any, ___: Any) -> None:
        exchange = current_exchange.get()
        if exchange.task is not None:  # the answer's body broke off, and gcsfs tries again
            raise TransientError("the answer broke off")
        exchange.task = asyncio.current_task()

    async def on_end(_: Any, __: Any, params: Any) -> None:
        response = params.response
        if response.status >= 400:
            raise FailedResponse(Answer(response.status, response.headers, await response.read()))
        receive = current_exchange.get().receive
        if receive is not None:
            await _pass_on(response, receive)

    async def on_exception(_: Any, __: Any, params: Any) -> None:
        exchange, error = current_exchange.get(), params.exception
        if exchange.is_stalled:
            raise TransientError("timed out: the server stopped reading what it was sent")
        if isinstance(error, Exception) and not isinstance(error, _RAISED):
            text = describe_error(error)
            untrusted = "CERTIFICATE_VERIFY_FAILED" in text
            raise (UntrustedServer(text) if untrusted else TransientError(text)) from error

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(on_start)
    trace.on_request_end.append(on_end)
    trace.on_request_exception.append(on_exception)
    return trace
