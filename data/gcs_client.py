"""One HTTP request to Google Cloud Storage, through gcsfs's session and credentials.

gcsfs repeats requests by itself, without a budget, and has no time-outs; here each request is
made once, is given up when nothing moves, and says what kind of failure it was: `retry` repeats.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.retry import TransientError, stall_s

# A request that brings less than this over all is given up, like one that stands still.
SLOWEST_BYTES_PER_S: Final = 50_000

EMULATOR_VARIABLE: Final = "STORAGE_EMULATOR_HOST"
_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
_TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})
_BODY_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What the server said: 2xx, 404, 412 or 416; everything else is raised."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Returns the body's JSON object.

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


class GcsClient:
    """Makes requests; `base` is the server's URL. It belongs to the process that made it."""

    def __init__(self) -> None:
        self._files, self.anonymous = _connect()
        self.base: str = self._files._location

    def request(
        self,
        method: str,
        path: str,
        *,
        bucket: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Sequence[bytes] = (),
        expected_bytes: int = 0,
    ) -> Answer:
        """Returns the answer to one request, whose body is the parts of `body`.

        `expected_bytes` says how large the answer may be.

        Raises:
          TransientError: it may work the next time.
          UserError: the credentials are missing or do not suffice.
          JobError: the server refused.
        """
        from fsspec.asyn import sync

        sending, patience_s = _Sending(body), stall_s()
        most_s = 3 * patience_s + (sending.num_bytes + expected_bytes) / SLOWEST_BYTES_PER_S
        try:
            asked = self._ask(
                method, self.base + path, params or {}, headers or {}, sending, patience_s
            )
            answer: Answer = sync(self._files.loop, _watched, asked, sending, patience_s, most_s)
        except (UserError, JobError, TransientError):
            raise
        except Exception as error:
            raise self._sorted(error, bucket) from error
        return self._judged(answer, method, bucket)

    async def _ask(
        self,
        method: str,
        url: str,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        sending: "_Sending",
        patience_s: float,
    ) -> Answer:
        import aiohttp
        import yarl

        files = self._files
        await files._set_session()
        own = {"Accept-Encoding": "identity", **headers, **sending.headers()}
        async with files.session.request(
            method,
            yarl.URL(url, encoded=True),
            params=files._get_params(dict(params)),
            headers=files._get_headers(own),
            data=sending.body(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=patience_s, sock_read=patience_s
            ),
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    def _judged(self, answer: Answer, method: str, bucket: str) -> Answer:
        status = answer.status
        if status < 300 or status in (404, 412, 416):
            return answer
        message = _message(answer.body)
        if status in _TRANSIENT or "rateLimitExceeded" in message or "crc32c" in message.lower():
            raise TransientError(f"the server said {status} {message}".rstrip())
        if status in (401, 403):
            raise self._no_permission(bucket, method, f"{status} {message}".rstrip())
        raise JobError(f"gs://{bucket}: the server refused a {method}: {status} {message}")

    def _no_permission(self, bucket: str, method: str, said: str) -> UserError:
        need = "read" if method == "GET" else "write"
        if self.anonymous:
            return UserError(
                f"gs://{bucket}: no Google credentials were found, and it may not be {need} "
                f"without ({said}): run 'gcloud auth application-default login', or name a key "
                "file in GOOGLE_APPLICATION_CREDENTIALS"
            )
        return UserError(
            f"gs://{bucket}: the account may not {need} there ({said}): grant it a role such as "
            "Storage Object User, or choose another account in GOOGLE_APPLICATION_CREDENTIALS"
        )

    def _sorted(self, error: Exception, bucket: str) -> Exception:
        """Returns what kind of failure of a library's this was."""
        import aiohttp
        import google.auth.exceptions
        from gcsfs.retry import HttpError, NonRetryableError

        text = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return JobError(f"{self.base}: its certificate is not trusted: {error}")
        if isinstance(error, (HttpError, NonRetryableError, google.auth.exceptions.RefreshError)):
            return UserError(
                f"gs://{bucket}: the Google credentials are not valid any more ({text}): run "
                "'gcloud auth application-default login', or name a key file in "
                "GOOGLE_APPLICATION_CREDENTIALS"
            )
        if isinstance(error, (OSError, aiohttp.ClientError, asyncio.TimeoutError)):
            return TransientError(text)
        if isinstance(error, google.auth.exceptions.TransportError):
            return TransientError(text)
        return error


def _connect() -> tuple[Any, bool]:
    """Returns gcsfs's file system, and whether it has no credentials."""
    from gcsfs.core import GCSFileSystem

    # The credentials are looked for here, because gcsfs goes on to ask a metadata server that
    # is not there for minutes, and unpickles tokens from the home folder.
    credentials = None if os.environ.get(EMULATOR_VARIABLE) else _credentials()
    files = GCSFileSystem(
        token=credentials or "anon",
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    return files, credentials is None


def _credentials() -> Any:
    """Returns Application Default Credentials, or None where there are none.

    Raises:
      UserError: what GOOGLE_APPLICATION_CREDENTIALS names is no key file.
    """
    import google.auth
    import google.auth.exceptions

    try:
        return google.auth.default(scopes=[_SCOPE])[0]
    except google.auth.exceptions.DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise UserError(f"Google credentials: {str(error).splitlines()[0]}") from error
        return None


class _Sending:
    """The body of a request, and when a part of it was last taken."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts
        self.num_bytes = sum(len(part) for part in parts)
        self.moved = time.monotonic()
        self.done = not parts

    def headers(self) -> dict[str, str]:
        return {"Content-Length": str(self.num_bytes)} if self._parts else {}

    def body(self) -> AsyncIterator[memoryview] | None:
        return self._slices() if self._parts else None

    async def _slices(self) -> AsyncIterator[memoryview]:
        for part in self._parts:
            view = memoryview(part)
            for begin in range(0, len(view), _BODY_CHUNK):
                self.moved = time.monotonic()
                yield view[begin : begin + _BODY_CHUNK]
        self.done = True


async def _watched(asked: Any, sending: _Sending, patience_s: float, most_s: float) -> Answer:
    """Awaits a request; gives it up when its body stands still. aiohttp watches the answer's."""
    task = asyncio.ensure_future(asked)
    begun = time.monotonic()
    try:
        while not (await asyncio.wait({task}, timeout=1.0))[0]:
            now = time.monotonic()
            if now - begun > most_s or (not sending.done and now - sending.moved > patience_s):
                raise TransientError(f"no progress within {patience_s:g} s")
        answer: Answer = task.result()
        return answer
    finally:
        task.cancel()


def _message(body: bytes) -> str:
    """Returns the message of an error's body, in one line."""
    text = body[:2000].decode(errors="replace")
    try:
        error = json.loads(body)["error"]
        reasons = [str(item.get("reason", "")) for item in error.get("errors", [])]
        text = " ".join([str(error.get("message", "")), *(r for r in reasons if "Limit" in r)])
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return " ".join(text.split())[:300]


@lru_cache(maxsize=2)
def _client_of(process: int, emulator: str) -> GcsClient:
    del process, emulator
    return GcsClient()


def client() -> GcsClient:
    """Returns this process's client, of the server that STORAGE_EMULATOR_HOST names now, if any.

    Raises:
      UserError: the credentials are no credentials.
    """
    return _client_of(os.getpid(), os.environ.get(EMULATOR_VARIABLE, ""))
