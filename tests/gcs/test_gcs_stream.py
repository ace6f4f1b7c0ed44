"""--cache=off: TensorFlow's own reader of gs://, redirected to the test server through TLS."""

import datetime
import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest


def _certificate(path: Path) -> Path:
    """Make a key and certificate for Google's host names, the only ones TensorFlow connects to."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.DNSName("*.googleapis.com")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


class _Front(BaseHTTPRequestHandler):
    """A proxy that answers a CONNECT to any host itself, with answers of the test server."""

    protocol_version = "HTTP/1.1"
    context: ssl.SSLContext
    upstream: str
    asked: list[str]

    def do_CONNECT(self) -> None:
        self.send_response_only(200)
        self.end_headers()
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def do_GET(self) -> None:
        self.asked.append(self.path)
        url = urlsplit(self.upstream)
        server = http.client.HTTPConnection(url.hostname or "", url.port)
        headers = {n: v for n, v in self.headers.items() if n.lower() in ("range", "accept")}
        server.request("GET", self.path, headers=headers)
        answer = server.getresponse()
        body = answer.read()
        server.close()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def front(bucket: Any, tmp_path: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The environment that redirects TensorFlow's gs:// to the server, and the requested paths."""
    pem = _certificate(tmp_path / "front.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    fields = {"context": context, "upstream": bucket.server.endpoint, "asked": []}
    handler = type("Front", (_Front,), fields)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "https_proxy": f"http://127.0.0.1:{server.server_address[1]}",
        "no_proxy": "127.0.0.1",
        "CURL_CA_BUNDLE": str(pem),
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "a-token",
        "NO_GCE_CHECK": "true",
        "GCS_RETRY_CONFIG_MAX_RETRIES": "1",
    }
    yield environment, handler.asked  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_tensorflow_streams_without_cache(
    bucket: Any, digit_shards: Path, front: tuple[dict[str, str], list[str]],
    tenfold: Callable[..., Any], tmp_path: Path,
) -> None:  # fmt: skip
    for path in digit_shards.iterdir():
        bucket.write(f"digits/{path.name}", path.read_bytes())
    environment, asked = front
    flags = [f"--shards={bucket.url}/digits", f"--cache_dir={tmp_path / 'c'}"]
    run = [f"--run_dir={tmp_path / 'run'}", "--num_workers=2", "--epochs=1"]
    done = tenfold("launch", *flags, *run, "--cache=off", **environment)
    assert done.status == 0, done.err
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["receipt"]["exact"]
    assert last["validation_receipt"]["exact"]
    streamed = {Path(unquote(urlsplit(path).path)).name for path in asked}
    assert streamed >= {path.name for path in digit_shards.glob("*.tfrecord")}
    assert not (tmp_path / "c").exists()
    # With the cache, TensorFlow makes no request itself.
    asked.clear()
    assert tenfold("bench", *flags, "--seconds=0.3", **environment).status == 0
    assert (asked, (tmp_path / "c").exists()) == ([], True)
