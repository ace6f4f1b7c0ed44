"""One HTTP request to Google Cloud Storage, by gcsfs.

gcsfs holds what Google's API asks of a client: credentials and their renewal, endpoints, universe
domains, requester pays (set it as fsspec reads it: FSSPEC_GCS_REQUESTER_PAYS). A request is made
once per call, is given up when no byte moves, and its failure is sorted by kind; `retry` repeats
it within a budget of seconds.

gcsfs repeats failed requests by itself: six times, up to 17 s apart, each failure logged with a
traceback. Its loop has no budget, so an aiohttp trace (`_trace`) ends it: the trace sees every
response before gcsfs does and raises what the response means.

gcsfs also joins the whole body of a response in memory, which takes more processor time than
receiving it. So the trace passes a large body on in the blocks in which it arrives, and leaves an
empty one to gcsfs.
"""

import asyncio
import itertools
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.request import getproxies_environment

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.retry import TransientError, stall_s

EMULATOR_VARIABLE: Final = "STORAGE_EMULATOR_HOST"
_TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})
# Part of the protocol: the object or its version is not there, or the range is beyond its end.
_EXPECTED: Final = frozenset({404, 412, 416})
_BLOCK_BYTES: Final = 1 << 20
# Event loops of a process, each with its own connections.
_LOOPS: Final = 2
# A request slower than this is given up, however steadily it moves.
_MIN_BYTES_PER_S: Final = 50_000
_LOG_IN: Final = (
    "run 'gcloud auth application-default login', or name a key file in "
    "GOOGLE_APPLICATION_CREDENTIALS"
)


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


class _Failed(Exception):
    """A response that gcsfs must not see: it would repeat the request, or log a traceback."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class _NotTaken(Exception):
    """The receiver of a body has failed with `error`, as on a full disk."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Untrusted(Exception):
    """The server's certificate is not trusted: no retry changes that."""


# Exceptions of a request that the trace has raised itself.
_RAISED: Final = (_Failed, _NotTaken, TransientError)


class _Exchange:
    """One request in the event loop's thread, between the trace and the body that is sent.

    `receive` is that of `GcsClient.request`.
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
_exchange: ContextVar[_Exchange] = ContextVar("_exchange")


class GcsClient:
    """Makes requests, from any thread of the process that made it."""

    def __init__(self) -> None:
        self._stall_s = stall_s()
        self._fs = _filesystem(_token(), self._stall_s)
        self.anonymous = self._fs.credentials.credentials is None
        # The server, without the path of the JSON interface.
        self.base = str(self._fs.base).removesuffix("/storage/v1/")

    def request(
        self,
        method: str,
        path: str,
        *,
        bucket: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Sequence[bytes] = (),
        answer_bytes: int = 0,
        receive: Receive | None = None,
    ) -> Answer:
        """Make one request.

        Args:
          method: GET, POST or DELETE.
          path: from the server's root, quoted.
          bucket: named in errors.
          params: query parameters.
          headers: further headers.
          body: the parts of the body, sent one after the other without being joined.
          answer_bytes: about how long the answer's body is; large ones may take longer.
          receive: takes the body of an answer with status 2xx, on the event loop's thread, which
            other requests wait for; `Answer.body` is then empty.

        Raises:
          TransientError: it may work the next time.
          UserError: the credentials are missing or do not suffice.
          JobError: the server refused.
        """
        self._renew_credentials(bucket)
        exchange, num_bytes = _Exchange(receive), sum(map(len, body))
        _exchange.set(exchange)
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        if body:
            sent["Content-Length"] = str(num_bytes)
        try:
            received, content = self._fs.call(
                method, f"{self.base}{path}", headers=sent,
                data=_sending(body, exchange, self._stall_s) if body else None,
                timeout=self._stall_s * 3 + (num_bytes + answer_bytes) / _MIN_BYTES_PER_S,
                **(params or {}),
            )  # fmt: skip
            return Answer(200, received, content)
        except _Failed as failed:
            return self._judged(failed.answer, method, bucket)
        except _NotTaken as failed:
            raise failed.error from None
        except _Untrusted as error:
            raise JobError(f"{self.base}: its certificate is not trusted: {error}") from error
        except TransientError:
            raise
        except (OSError, asyncio.TimeoutError, _client_error()) as error:
            raise TransientError(_describe(error)) from error

    def _renew_credentials(self, bucket: str) -> None:
        """Renew the credentials if they are about to expire, here in the caller's thread.

        gcsfs would do so in the event loop's thread, which all requests share, and would repeat
        a refusal for half a minute.
        """
        try:
            self._fs.credentials.maybe_refresh()
        except Exception as error:
            if type(error).__name__ == "TransportError":
                raise TransientError(f"the credentials could not be renewed: {error}") from error
            raise UserError(
                f"gs://{bucket}: the Google credentials are not valid any more "
                f"({error.__cause__ or error}): {_LOG_IN}"
            ) from error

    def _judged(self, answer: Answer, method: str, bucket: str) -> Answer:
        status = answer.status
        if status in _EXPECTED:
            return answer
        message = _message(answer.body)
        if status in _TRANSIENT or "rateLimitExceeded" in message or "crc32c" in message.lower():
            raise TransientError(f"the server answered {status} {message}".rstrip())
        if status in (401, 403):
            raise self._no_permission(bucket, method, f"{status} {message}".rstrip())
        if status == 400 and "requester pays" in message:
            raise UserError(
                f"gs://{bucket}: the bucket is 'requester pays' ({message}): set "
                "FSSPEC_GCS_REQUESTER_PAYS to the project that pays"
            )
        raise JobError(f"gs://{bucket}: the server refused a {method}: {status} {message}")

    def _no_permission(self, bucket: str, method: str, response: str) -> UserError:
        need = "read" if method == "GET" else "write"
        if self.anonymous:
            return UserError(
                f"gs://{bucket}: no Google credentials were found, and it may not be {need} "
                f"without ({response}): {_LOG_IN}"
            )
        return UserError(
            f"gs://{bucket}: the account may not {need} there ({response}): grant it a role such "
            "as Storage Object User, or choose another account in GOOGLE_APPLICATION_CREDENTIALS"
        )


def _describe(error: BaseException) -> str:
    """Return a broken connection's failure in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"timed out: {text}" if isinstance(error, asyncio.TimeoutError) else text


def _client_error() -> type[Exception]:
    import aiohttp

    return aiohttp.ClientError


async def _sending(
    parts: Sequence[bytes], exchange: _Exchange, stall_seconds: float
) -> AsyncIterator[memoryview]:
    """Yield the parts in blocks; give up where the server takes too long to read one.

    aiohttp's own time limits begin when the whole body has been sent.
    """
    loop = asyncio.get_running_loop()
    for block in _blocks(parts):
        timer = loop.call_later(stall_seconds, exchange.give_up)
        try:
            yield block
        finally:
            timer.cancel()


def _blocks(parts: Sequence[bytes]) -> Iterator[memoryview]:
    for part in parts:
        view = memoryview(part)
        for begin in range(0, len(view), _BLOCK_BYTES):
            yield view[begin : begin + _BLOCK_BYTES]


async def _pass_on(response: Any, receive: Receive) -> None:
    """Pass the body on in the blocks in which it arrives.

    Raises:
      _NotTaken: the receiver has failed; errors of the network pass unchanged.
    """
    take: Callable[[bytes], object] | None = None
    while block := await response.content.readany():
        try:
            take = take or receive(response.headers)
            take(block)
        except Exception as error:
            response.close()
            raise _NotTaken(error) from error


def _trace() -> Any:
    """Return the aiohttp trace that takes every failure out of gcsfs's hands.

    All three callbacks run in the event loop's thread, in the task of the request.
    """
    import aiohttp

    async def on_start(_: Any, __: Any, ___: Any) -> None:
        exchange = _exchange.get()
        if exchange.task is not None:  # the answer's body broke off, and gcsfs tries again
            raise TransientError("the answer broke off")
        exchange.task = asyncio.current_task()

    async def on_end(_: Any, __: Any, params: Any) -> None:
        response = params.response
        if response.status >= 400:
            raise _Failed(Answer(response.status, response.headers, await response.read()))
        receive = _exchange.get().receive
        if receive is not None:
            await _pass_on(response, receive)

    async def on_exception(_: Any, __: Any, params: Any) -> None:
        exchange, error = _exchange.get(), params.exception
        if exchange.is_stalled:
            raise TransientError("timed out: the server stopped reading what it was sent")
        if isinstance(error, Exception) and not isinstance(error, _RAISED):
            text = _describe(error)
            untrusted = "CERTIFICATE_VERIFY_FAILED" in text
            raise (_Untrusted(text) if untrusted else TransientError(text)) from error

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(on_start)
    trace.on_request_end.append(on_end)
    trace.on_request_exception.append(on_exception)
    return trace


def _filesystem(token: Any, stall_seconds: float) -> Any:
    """Return a gcsfs file system of this process's own: none may be shared over a fork.

    Raises:
      UserError: the file that GOOGLE_APPLICATION_CREDENTIALS names is no key file.
    """
    # Where there is no metadata server, one try of three seconds shows it; read on import.
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    # gcsfs's support of zonal buckets imports gRPC and asks about every bucket; read on import.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import aiohttp
    from gcsfs.core import GCSFileSystem

    # google-auth's warnings say nothing that our errors do not.
    logging.getLogger("google.auth._default").setLevel(logging.ERROR)
    options = {
        "loop": _new_loop(),
        "access": "read_write",
        "skip_instance_cache": True,
        "use_listings_cache": False,
        "requests_timeout": aiohttp.ClientTimeout(
            total=None, sock_connect=stall_seconds, sock_read=stall_seconds
        ),
        "session_kwargs": {
            "trust_env": _has_proxy(),
            "read_bufsize": _BLOCK_BYTES,
            "trace_configs": [_trace()],
        },
    }
    try:
        return GCSFileSystem(token=token, **options)
    except Exception as error:
        if type(error).__name__ != "DefaultCredentialsError":
            raise
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise UserError(f"Google credentials: {str(error).splitlines()[0]}") from error
        return GCSFileSystem(token="anon", **options)


def _has_proxy() -> bool:
    """Whether the environment names a proxy.

    If told to look, aiohttp searches the environment and netrc for each request, in two threads:
    half the time of a request for a small object.
    """
    return not getproxies_environment().keys().isdisjoint({"http", "https", "all"})


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that runs in a thread of its own until the process ends."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="gcs", daemon=True).start()
    return loop


def _token() -> Any:
    """Return gcsfs's name of the credentials to use: the application's default ones."""
    return "anon" if os.environ.get(EMULATOR_VARIABLE) else "google_default"


def _message(body: bytes) -> str:
    """Return the message of an error's body, in one line."""
    text = body[:2000].decode(errors="replace")
    try:
        error = json.loads(body)["error"]
        reasons = [str(item.get("reason", "")) for item in error.get("errors", [])]
        text = " ".join([str(error.get("message", "")), *(r for r in reasons if "Limit" in r)])
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return " ".join(text.split())[:300]


@lru_cache(maxsize=2)
def _clients_of(process: int, emulator: str, stall_seconds: float) -> Iterator[GcsClient]:
    del process, emulator, stall_seconds
    return itertools.cycle([GcsClient() for _ in range(_LOOPS)])


def client() -> GcsClient:
    """Return one of this process's clients, of the server that STORAGE_EMULATOR_HOST names now.

    Each has an event loop in a thread of its own, and they take turns: one loop's Python is the
    limit of a fast network.

    Raises:
      UserError: the credentials are no credentials.
    """
    return next(_clients_of(os.getpid(), os.environ.get(EMULATOR_VARIABLE, ""), stall_s()))
