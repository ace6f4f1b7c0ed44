"""One HTTP request to Google Cloud Storage.

Made once, given up when nothing moves, and sorted by what kind of failure it was: `retry` repeats.
(gcsfs repeats by itself without a budget, has no time-outs, and sends at two thirds of the rate.)
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.retry import TransientError, stall_s

SERVER: Final = "https://storage.googleapis.com"
EMULATOR_VARIABLE: Final = "STORAGE_EMULATOR_HOST"
_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
_TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})
_BLOCK: Final = 1 << 20
_RECEIVED_BLOCK: Final = 1 << 19  # what the processor's cache holds
_CONNECTIONS: Final = 64
_LOG_IN: Final = (
    "run 'gcloud auth application-default login', or name a key file in "
    "GOOGLE_APPLICATION_CREDENTIALS"
)


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


Receive = Callable[[Answer, Iterator[bytes]], None]


class GcsClient:
    """Makes requests, from any thread of the process that made it."""

    def __init__(self) -> None:
        emulator = os.environ.get(EMULATOR_VARIABLE, "")
        self._credentials = None if emulator else _credentials()
        self._refreshing = threading.Lock()
        self.anonymous = self._credentials is None
        self.base = emulator if "://" in emulator or not emulator else f"http://{emulator}"
        self.base = self.base.rstrip("/") or SERVER
        self._pool = _pool(self.base)

    def request(
        self,
        method: str,
        path: str,
        *,
        bucket: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Sequence[bytes] = (),
        receive: Receive | None = None,
    ) -> Answer:
        """Returns the answer to one request, whose body is the parts of `body`.

        `receive` gets a 2xx answer without its body, and that in blocks as they come.

        Raises:
          TransientError: it may work the next time.
          UserError: the credentials are missing or do not suffice.
          JobError: the server refused.
        """
        import urllib3

        url = f"{self.base}{path}?{urlencode(params or {})}".rstrip("?")
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        if body:
            sent["Content-Length"] = str(sum(map(len, body)))
        # Each read from and each write to the socket may take so long.
        patience = urllib3.Timeout(connect=stall_s(), read=stall_s())
        try:
            self._sign(method, url, sent, bucket)
            answered = self._pool.request(
                method, url, headers=sent, body=_blocks(body) if body else None, timeout=patience,
                preload_content=receive is None,
            )  # fmt: skip
        except TransientError:
            raise
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._sorted(error) from error
        try:
            answer = _answer(answered, receive)
        except urllib3.exceptions.HTTPError as error:  # what `receive` raises is its own
            raise self._sorted(error) from error
        finally:
            answered.close()  # a connection whose answer is read to its end has gone back
        return self._judged(answer, method, bucket)

    def _sign(self, method: str, url: str, headers: dict[str, str], bucket: str) -> None:
        """Adds what proves who we are, renewed where it is about to expire."""
        if self._credentials is None:
            return
        from google.auth import exceptions
        from google.auth.transport.requests import Request

        try:
            with self._refreshing:
                self._credentials.before_request(Request(), method, url, headers)
        except exceptions.TransportError as error:
            raise TransientError(f"the credentials could not be renewed: {error}") from error
        except exceptions.GoogleAuthError as error:
            raise UserError(
                f"gs://{bucket}: the Google credentials are not valid any more ({error}): "
                f"{_LOG_IN}"
            ) from error

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
                f"without ({said}): {_LOG_IN}"
            )
        return UserError(
            f"gs://{bucket}: the account may not {need} there ({said}): grant it a role such as "
            "Storage Object User, or choose another account in GOOGLE_APPLICATION_CREDENTIALS"
        )

    def _sorted(self, error: Exception) -> Exception:
        """Returns what kind of failure of the connection this was."""
        text = " ".join(f"{type(error).__name__}: {error}".split())
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return JobError(f"{self.base}: its certificate is not trusted: {text}")
        return TransientError(text)


def _pool(base: str) -> Any:
    """Returns the connections, by way of the proxy that the environment names, if any."""
    import certifi
    import urllib3

    options: dict[str, Any] = {"maxsize": _CONNECTIONS, "retries": False}
    options["ca_certs"] = os.environ.get("SSL_CERT_FILE") or certifi.where()
    place = urlsplit(base)
    proxy = getproxies().get(place.scheme)
    if not proxy or proxy_bypass(place.hostname or ""):
        return urllib3.PoolManager(**options)
    user = urllib3.util.parse_url(proxy).auth
    if user:
        options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=user)
    return urllib3.ProxyManager(proxy, **options)


def _answer(answered: Any, receive: Receive | None) -> Answer:
    """Returns the answer, whose body has gone to `receive` where it is one to be received."""
    answer = Answer(answered.status, answered.headers, b"")
    if receive is None or answer.status >= 300:
        return replace(answer, body=answered.data)
    receive(answer, answered.stream(_RECEIVED_BLOCK, decode_content=False))
    return answer


def _blocks(parts: Sequence[bytes]) -> Iterator[memoryview]:
    """Yields the parts in blocks, each of which may take its time."""
    for part in parts:
        view = memoryview(part)
        for begin in range(0, len(view), _BLOCK):
            yield view[begin : begin + _BLOCK]


def _credentials() -> Any:
    """Returns Application Default Credentials, or None where there are none.

    Raises:
      UserError: what GOOGLE_APPLICATION_CREDENTIALS names is no key file.
    """
    # Where there is no metadata server, one try of three seconds tells; it is read on import.
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    import google.auth
    import google.auth.exceptions

    # Its warnings say nothing that our errors do not.
    logging.getLogger("google.auth._default").setLevel(logging.ERROR)
    try:
        return google.auth.default(scopes=[_SCOPE])[0]
    except google.auth.exceptions.DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise UserError(f"Google credentials: {str(error).splitlines()[0]}") from error
        return None


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
