"""Single HTTP requests to Google Cloud Storage.

A request is attempted once, times out if no byte moves, and classifies its failure: transient,
the user's, or permanent. Retries are up to `tenfold.data.storage.retry`. (gcsfs retries without
a budget, has no time-outs, and uploads at two thirds of this client's rate.)
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
_SENT_BLOCK_BYTES: Final = 1 << 20
_RECEIVED_BLOCK_BYTES: Final = 1 << 19  # fits the processor's cache
_MAX_CONNECTIONS: Final = 64
_LOG_IN_REMEDY: Final = (
    "run 'gcloud auth application-default login', or name a key file in "
    "GOOGLE_APPLICATION_CREDENTIALS"
)


@dataclass(frozen=True)
class Answer:
    """An answer of the server with status 2xx, 404, 412 or 416; other statuses are raised."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
          TransientError: the body is not a JSON object: it was damaged on the way.
        """
        try:
            document = json.loads(self.body)
        except ValueError as error:
            raise TransientError(f"the answer is no JSON: {self.body[:80]!r}") from error
        if not isinstance(document, dict):
            raise TransientError(f"the answer is no JSON object: {self.body[:80]!r}")
        return document


Receive = Callable[[Answer, Iterator[bytes]], None]
"""Takes a 2xx answer without its body, and the blocks of the body as they arrive."""


class GcsClient:
    """Makes requests, from any thread of one process; another process needs its own client.

    Raises:
      UserError: the credentials are invalid.
    """

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
        """Send one request and return the answer.

        Args:
          method: HTTP method.
          path: Path of the URL, quoted.
          bucket: Name of the bucket, for errors.
          params: Query parameters, not quoted.
          headers: Further headers.
          body: Parts of the body, sent one after the other.
          receive: Takes the body of a 2xx answer in blocks; the answer then has an empty body.

        Raises:
          TransientError: a retry may succeed.
          UserError: the credentials are missing, invalid or lack a permission.
          JobError: the server refused the request.
        """
        import urllib3

        url = f"{self.base}{path}?{urlencode(params or {})}".rstrip("?")
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        if body:
            sent["Content-Length"] = str(sum(map(len, body)))
        # Applies to each single read from and write to the socket, not to the whole request.
        timeout = urllib3.Timeout(connect=stall_s(), read=stall_s())
        try:
            self._sign(method, url, sent, bucket)
            response = self._pool.request(
                method, url, headers=sent, body=_blocks(body) if body else None, timeout=timeout,
                preload_content=receive is None,
            )  # fmt: skip
        except TransientError:
            raise
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._classified(error) from error
        try:
            answer = _answer(response, receive)
        except urllib3.exceptions.HTTPError as error:  # other exceptions are those of `receive`
            raise self._classified(error) from error
        finally:
            # Drops a connection with an unread rest; one read to its end is back in the pool.
            response.close()
        return self._checked(answer, method, bucket)

    def _sign(self, method: str, url: str, headers: dict[str, str], bucket: str) -> None:
        """Add the access token, renewed if it is about to expire."""
        if self._credentials is None:
            return
        from google.auth import exceptions
        from google.auth.transport.requests import Request

        try:
            with self._refreshing:  # the credentials are not safe among threads
                self._credentials.before_request(Request(), method, url, headers)
        except exceptions.TransportError as error:
            raise TransientError(f"the credentials could not be renewed: {error}") from error
        except exceptions.GoogleAuthError as error:
            raise UserError(
                f"gs://{bucket}: the Google credentials are not valid any more ({error}): "
                f"{_LOG_IN_REMEDY}"
            ) from error

    def _checked(self, answer: Answer, method: str, bucket: str) -> Answer:
        """Return the answer, or raise the error that its status stands for."""
        status = answer.status
        if status < 300 or status in (404, 412, 416):
            return answer
        message = _message(answer.body)
        if status in _TRANSIENT or "rateLimitExceeded" in message or "crc32c" in message.lower():
            raise TransientError(f"the server answered {status} {message}".rstrip())
        if status in (401, 403):
            raise self._no_permission(bucket, method, f"{status} {message}".rstrip())
        raise JobError(f"gs://{bucket}: the server refused a {method}: {status} {message}")

    def _no_permission(self, bucket: str, method: str, reason: str) -> UserError:
        action, done = ("read", "read") if method == "GET" else ("write", "written")
        if self.anonymous:
            return UserError(
                f"gs://{bucket}: no Google credentials were found, and the bucket cannot be "
                f"{done} without ({reason}): {_LOG_IN_REMEDY}"
            )
        return UserError(
            f"gs://{bucket}: the account may not {action} there ({reason}): grant it a role such "
            "as Storage Object User, or choose another account in GOOGLE_APPLICATION_CREDENTIALS"
        )

    def _classified(self, error: Exception) -> Exception:
        """Return a failure of the connection as a JobError or a TransientError."""
        text = " ".join(f"{type(error).__name__}: {error}".split())
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return JobError(f"{self.base}: its certificate is not trusted: {text}")
        return TransientError(text)


def _pool(base: str) -> Any:
    """Return a connection pool; it uses the proxy that the environment names, if any."""
    import certifi
    import urllib3

    options: dict[str, Any] = {"maxsize": _MAX_CONNECTIONS, "retries": False}
    options["ca_certs"] = os.environ.get("SSL_CERT_FILE") or certifi.where()
    url = urlsplit(base)
    proxy = getproxies().get(url.scheme)
    if not proxy or proxy_bypass(url.hostname or ""):
        return urllib3.PoolManager(**options)
    user = urllib3.util.parse_url(proxy).auth
    if user:
        options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=user)
    return urllib3.ProxyManager(proxy, **options)


def _answer(response: Any, receive: Receive | None) -> Answer:
    """Return urllib3's response as an answer; a 2xx body goes to `receive`, if given."""
    answer = Answer(response.status, response.headers, b"")
    if receive is None or answer.status >= 300:
        return replace(answer, body=response.data)
    receive(answer, response.stream(_RECEIVED_BLOCK_BYTES, decode_content=False))
    return answer


def _blocks(parts: Sequence[bytes]) -> Iterator[memoryview]:
    """Yield the parts in blocks; the time-out applies to the writing of each block."""
    for part in parts:
        view = memoryview(part)
        for begin in range(0, len(view), _SENT_BLOCK_BYTES):
            yield view[begin : begin + _SENT_BLOCK_BYTES]


def _credentials() -> Any:
    """Return Application Default Credentials, or None if there are none.

    Raises:
      UserError: GOOGLE_APPLICATION_CREDENTIALS does not name a key file.
    """
    # google.auth probes for a metadata server, three seconds a try, and reads this on import.
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    import google.auth
    import google.auth.exceptions

    # Its warnings repeat what this module's errors say.
    logging.getLogger("google.auth._default").setLevel(logging.ERROR)
    try:
        return google.auth.default(scopes=[_SCOPE])[0]
    except google.auth.exceptions.DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise UserError(f"Google credentials: {str(error).splitlines()[0]}") from error
        return None


def _message(body: bytes) -> str:
    """Return the message in the body of an error, in one line of at most 300 characters."""
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
    """Return the client of this process, for the server that STORAGE_EMULATOR_HOST names now.

    Raises:
      UserError: the credentials are invalid.
    """
    return _client_of(os.getpid(), os.environ.get(EMULATOR_VARIABLE, ""))
