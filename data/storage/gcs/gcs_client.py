"""One HTTP request to Google Cloud Storage, by gcsfs.

gcsfs holds what Google's API asks of a client: credentials and their renewal, endpoints, universe
domains, requester pays (set it as fsspec reads it: FSSPEC_GCS_REQUESTER_PAYS). A request is made
once per call, is given up when no byte moves, and its failure is sorted by kind; `retry` repeats
it within a budget of seconds.

`response_trace` keeps failures and large bodies from gcsfs, which would repeat requests without a
budget.
"""

import asyncio
import itertools
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.request import getproxies_environment

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.gcs.response_trace import (
    Answer,
    Exchange,
    FailedResponse,
    Receive,
    ReceiverFailed,
    UntrustedServer,
    current_exchange,
    describe_error,
    response_trace,
)
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
        exchange, num_bytes = Exchange(receive), sum(map(len, body))
        current_exchange.set(exchange)
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
        except FailedResponse as failed:
            return self._judged(failed.answer, method, bucket)
        except ReceiverFailed as failed:
            raise failed.error from None
        except UntrustedServer as error:
            raise JobError(f"{self.base}: its certificate is not trusted: {error}") from error
        except TransientError:
            raise
        except (OSError, asyncio.TimeoutError, _client_error()) as error:
            raise TransientError(describe_error(error)) from error

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


def _client_error() -> type[Exception]:
    import aiohttp

    return aiohttp.ClientError


async def _sending(
    parts: Sequence[bytes], exchange: Exchange, stall_seconds: float
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
            "trace_configs": [response_trace()],
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
