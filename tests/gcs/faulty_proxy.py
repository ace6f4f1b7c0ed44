"""A program: an HTTP proxy in front of the server that breaks what passes, as it is told.

    faulty_proxy.py UPSTREAM SEED NAME=SHARE …

NAME is a fault (FAULTS), SHARE the share of the requests that it strikes; a request suffers one
fault at most. It prints its port, serves until its standard input closes, and then prints as
JSON how often each fault has `struck`, how often each object was asked for (`media`) and how often
it was `delivered` whole and sound, by name, the `failures` that were not ordered, and how many
uploads were under way `together` at most.
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
FREE_UPLOADS = 12  # that come through before others are held


class Answer:
    """What the server said, or what is said in its place."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream = ""
    shares: dict[str, float]
    dice: random.Random
    struck: "Counter[str]"
    media: "Counter[str]"
    delivered: "Counter[str]"
    authorizations: "Counter[str]"
    failures: list[str]
    begun = 0
    uploads = 0
    together = 0
    sound = 0  # requests under way that no fault has struck
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
        """Passes a request on, and notes that its answer has been sent."""
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
        """Returns the name of the object whose bytes are asked for, or ""."""
        place = urlsplit(self.path)
        return unquote(place.path.rpartition("/")[2]) if "alt=media" in place.query else ""

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts the uploads that are under way."""
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
        """Returns the fault that this request suffers, or ""."""
        with self.lock:
            self.media[self.media_name()] += 1
            at = self.dice.random()
            for name, share in self.shares.items():
                at -= share
                if at < 0 and (name not in NEEDS or NEEDS[name](self, body)):
                    self.struck[name] += 1
                    return name
        return ""

    def ask(self, body: bytes) -> Answer:
        place = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(place.hostname or "", place.port)
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        try:
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(repr(error))  # nobody ordered it: the test must know
            raise
        finally:
            connection.close()

    def send(self, answer: Answer, *, length: int | None = None, sent: int | None = None) -> None:
        """Sends an answer, or only `sent` bytes of its body, which it says has `length`."""
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
    """The connection breaks: before the request is passed on, or in the answer's body."""
    if handler.command == "GET":
        answer = handler.ask(body)
        handler.send(answer, length=len(answer.body) + 1, sent=len(answer.body) // 2)
    handler.cut()


def _stall(handler: Handler, body: bytes) -> None:
    """Half of the answer comes, and then nothing."""
    answer = handler.ask(body)
    handler.send(answer, length=len(answer.body) + 1, sent=len(answer.body) // 2)
    time.sleep(STALL_S)


def _shorten(handler: Handler, body: bytes) -> None:
    """A well-formed answer that lacks its end."""
    answer = handler.ask(body)
    answer.body = answer.body[: len(answer.body) * 2 // 3]
    handler.send(answer)


def _flip(handler: Handler, body: bytes) -> None:
    """One bit of the data is another, on the way there or back."""
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
    """The whole object, whichever part of it was asked for, as HTTP allows."""
    del handler.headers["Range"]
    handler.send(handler.ask(body))


def _lose_answer(handler: Handler, body: bytes) -> None:
    """The request is done, but nobody hears of it."""
    handler.ask(body)
    handler.cut()


def _slow_upload(handler: Handler, body: bytes) -> None:
    """What is sent takes its time."""
    time.sleep(0.15)
    handler.send(handler.ask(body))


def _hold(handler: Handler, body: bytes) -> None:
    """The request is taken, and goes no further."""
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
    """Bytes of an object, there or back, and not only its description."""
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
NEEDS: dict[str, Callable[[Handler, bytes], bool]] = {
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
        """Clients leave as they like."""


def main() -> None:
    upstream, seed, *shares = sys.argv[1:]
    Handler.upstream = upstream
    Handler.dice = random.Random(int(seed))
    Handler.shares = {name: float(share) for name, share in (text.split("=") for text in shares)}
    assert set(Handler.shares) <= set(FAULTS), shares
    Handler.struck, Handler.media, Handler.delivered = Counter(), Counter(), Counter()
    Handler.authorizations = Counter()
    Handler.failures = []
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    while Handler.sound:  # whoever has got an answer may be here before its sender has noted it
        time.sleep(0.01)
    for counts in (Handler.media, Handler.delivered):
        del counts[""]
    names = ("struck", "media", "delivered", "authorizations", "failures", "together")
    print(json.dumps({name: getattr(Handler, name) for name in names}), flush=True)


if __name__ == "__main__":
    main()
