"""A program: an HTTP proxy in front of a server that injects faults into requests.

    faulty_proxy.py UPSTREAM SEED NAME=SHARE …

NAME is a fault (see FAULTS), SHARE the share of requests that it strikes; a request suffers at
most one fault. The proxy prints its port, serves until its standard input closes, and then prints
a JSON object:

    struck      how often each fault has struck, by name
    media       requests for the bytes of each object, by name
    delivered   complete and sound answers to those requests, by name
    failures    errors that were not injected
    together    largest number of simultaneous uploads
"""

import http.client
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

STALL_S = 3600.0
FREE_UPLOADS = 12  # pass before `hold_later` holds further ones


class Answer:
    """An answer of the server, or a fault in its place."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream = ""
    shares: dict[str, float]
    rng: random.Random
    struck: "Counter[str]"
    media: "Counter[str]"
    delivered: "Counter[str]"
    authorizations: "Counter[str]"
    failures: list[str]
    begun = 0
    uploads = 0
    together = 0
    sound = 0  # requests in progress without a fault
    lock = threading.Lock()

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self._draw(body)
        if "Authorization" in self.headers:
            with self.lock:
                self.authorizations[self.headers["Authorization"]] += 1
        with self.counted():
            if fault:
                FAULTS[fault](self, body)
            else:
                self.deliver(body)

    def deliver(self, body: bytes) -> None:
        """Forward a request, and count its answer as delivered once it is sent."""
        with self.lock:
            Handler.sound += 1
        try:
            self.send(self.ask(body))
            with self.lock:
                self.delivered[self.media_name()] += 1
        finally:
            with self.lock:
                Handler.sound -= 1

    def media_name(self) -> str:
        """Return the name of the object whose bytes are requested, or ""."""
        url = urlsplit(self.path)
        return unquote(url.path.rpartition("/")[2]) if "alt=media" in url.query else ""

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the uploads in progress."""
        uploads = self.command == "POST"
        with self.lock:
            Handler.uploads += uploads
            Handler.together = max(Handler.together, Handler.uploads)
        try:
            yield
        finally:
            with self.lock:
                Handler.uploads -= uploads

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_any

    def _draw(self, body: bytes) -> str:
        """Return the fault that strikes this request, or ""."""
        with self.lock:
            self.media[self.media_name()] += 1
            number = self.rng.random()
            for name, share in self.shares.items():
                number -= share
                if number < 0 and (name not in APPLIES or APPLIES[name](self, body)):
                    self.struck[name] += 1
                    return name
        return ""

    def ask(self, body: bytes) -> Answer:
        url = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(url.hostname or "", url.port)
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        try:
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(repr(error))  # not injected: the test must fail
            raise
        finally:
            connection.close()

    def send(self, answer: Answer, *, length: int | None = None, sent: int | None = None) -> None:
        """Send an answer; optionally only `sent` bytes of a body announced with `length`."""
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) if length is None else length))
        self.end_headers()
        self.wfile.write(answer.body[:sent])
        self.wfile.flush()

    def cut(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def error(self, status: int, message: str) -> Answer:
        text = json.dumps({"error": {"code": status, "message": message}})
        return Answer(status, [("Content-Type", "application/json")], text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def _status(status: int, message: str) -> Callable[[Handler, bytes], None]:
    return lambda handler, body: handler.send(handler.error(status, message))


def _cut(handler: Handler, body: bytes) -> None:
    """Break the connection: before the request is forwarded, or within the answer's body."""
    if handler.command == "GET":
        answer = handler.ask(body)
        handler.send(answer, length=len(answer.body) + 1, sent=len(answer.body) // 2)
    handler.cut()


def _stall(handler: Handler, body: bytes) -> None:
    """Send half of the answer, then nothing."""
    answer = handler.ask(body)
    handler.send(answer, length=len(answer.body) + 1, sent=len(answer.body) // 2)
    time.sleep(STALL_S)


def _shorten(handler: Handler, body: bytes) -> None:
    """Send a well-formed answer without its end."""
    answer = handler.ask(body)
    answer.body = answer.body[: len(answer.body) * 2 // 3]
    handler.send(answer)


def _flip(handler: Handler, body: bytes) -> None:
    """Flip one bit of the uploaded or downloaded data."""
    data = bytearray(body if body else b"")
    if handler.command == "POST":
        data[len(data) // 2] ^= 4
        handler.send(handler.ask(bytes(data)))
        return
    answer = handler.ask(body)
    data = bytearray(answer.body)
    if data:
        data[len(data) // 2] ^= 4
    answer.body = bytes(data)
    handler.send(answer)


def _whole(handler: Handler, body: bytes) -> None:
    """Ignore the requested range and send the whole object, as HTTP allows."""
    del handler.headers["Range"]
    handler.send(handler.ask(body))


def _lose_answer(handler: Handler, body: bytes) -> None:
    """Carry out the request, but drop its answer."""
    handler.ask(body)
    handler.cut()


def _slow_upload(handler: Handler, body: bytes) -> None:
    """Delay an upload."""
    time.sleep(0.15)
    handler.send(handler.ask(body))


def _hold(handler: Handler, body: bytes) -> None:
    """Accept the request and never answer."""
    time.sleep(STALL_S)


def _is_late_upload(handler: Handler, body: bytes) -> bool:
    Handler.begun += handler.command == "POST"
    return handler.command == "POST" and Handler.begun > FREE_UPLOADS


def _asks_for_bytes(handler: Handler, body: bytes) -> bool:
    """An object's bytes are asked for: of Cloud Storage, or by S3's interface."""
    of_s3 = (
        not handler.path.startswith(("/storage/", "/download/")) and "list-" not in handler.path
    )
    return "alt=media" in handler.path or (handler.command == "GET" and of_s3)


def _is_media(handler: Handler, body: bytes) -> bool:
    """Whether a request uploads or downloads the bytes of an object."""
    return _asks_for_bytes(handler, body) or (handler.command == "POST" and len(body) > 4000)


FAULTS: dict[str, Callable[[Handler, bytes], None]] = {
    "503": _status(503, "Service Unavailable"),
    "429": _status(429, "rateLimitExceeded"),
    "401": _status(401, "Anonymous caller does not have storage.objects.get access"),
    "403": _status(403, "the account does not have storage.objects.create access"),
    "cut": _cut,
    "stall": _stall,
    "shorten": _shorten,
    "flip": _flip,
    "whole": _whole,
    "lose_answer": _lose_answer,
    "slow_upload": _slow_upload,
    "hold_later": _hold,
    "no_shards": _status(503, "Service Unavailable"),
}
# Requests that a fault may strike; all without an entry.
APPLIES: dict[str, Callable[[Handler, bytes], bool]] = {
    "shorten": _asks_for_bytes,
    "flip": _is_media,
    "lose_answer": lambda handler, body: handler.command == "POST",
    "slow_upload": lambda handler, body: handler.command == "POST",
    "hold_later": _is_late_upload,
    "no_shards": lambda handler, body: ".tfrecord?alt=media" in handler.path,
}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect."""


def main() -> None:
    upstream, seed, *shares = sys.argv[1:]
    Handler.upstream = upstream
    Handler.rng = random.Random(int(seed))
    Handler.shares = {name: float(share) for name, share in (text.split("=") for text in shares)}
    assert set(Handler.shares) <= set(FAULTS), shares
    Handler.struck, Handler.media, Handler.delivered = Counter(), Counter(), Counter()
    Handler.authorizations = Counter()
    Handler.failures = []
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    while Handler.sound:  # a client may have its answer before `deliver` has counted it
        time.sleep(0.01)
    for counts in (Handler.media, Handler.delivered):
        del counts[""]
    names = ("struck", "media", "delivered", "authorizations", "failures", "together")
    print(json.dumps({name: getattr(Handler, name) for name in names}), flush=True)


if __name__ == "__main__":
    main()
