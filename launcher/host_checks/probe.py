"""The probe: looks at one host before a launch. One file of the standard library alone.

Its last argument is the request, a JSON object: ports (to be free on `address`), address,
names (to be resolved), folder (whose disk is looked at), paths (to be there). It prints what
it finds as one line of JSON, keeps the ports open, waits for a line on standard input with
peers, a JSON list of [address, port], tries to connect to each, and prints those that it
could not reach, with the reason.
"""

import glob
import hashlib
import json
import os
import platform
import shutil
import socket
import sys
import time
from importlib import metadata
from typing import Any, Final

CONNECT_TIMEOUT_S: Final = 2.0
PACKAGES: Final = ("tensorflow", "keras", "tenfold")
PROXIES: Final = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")


def versions() -> dict[str, str | None]:
    """Returns the versions of Python and of the packages that must be alike."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def code_digest() -> str:
    """Returns a digest of this package's Python files: equal where the code is."""
    here = os.path.abspath(__file__)
    top = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    digest = hashlib.sha256()
    for part in ("data", "launcher", "models"):
        for path in sorted(glob.glob(os.path.join(top, part, "**", "*.py"), recursive=True)):
            name = os.path.relpath(path, top)
            # Where it is installed, the package's own __init__ lies one folder up.
            if not name.startswith(os.path.join("launcher", "tenfold")):
                with open(path, "rb") as file:
                    digest.update(name.encode() + b"\0" + file.read() + b"\0")
    return digest.hexdigest()


def listen(address: str, port: int) -> socket.socket | str:
    """Returns a listening socket, or why there is none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((address, port))
        server.listen(128)
    except OSError as error:
        server.close()
        return error.strerror or str(error)
    return server


def unresolved(names: list[str]) -> dict[str, str]:
    """Returns the names that do not resolve, with the reason."""
    failed = {}
    for name in names:
        try:
            socket.getaddrinfo(name, None)
        except OSError as error:
            failed[name] = error.strerror or str(error)
    return failed


def unreached(peers: list[tuple[str, int]]) -> list[tuple[str, int, str]]:
    """Returns the peers to which no connection comes about, with the reason."""
    failed = []
    for address, port in peers:
        try:
            socket.create_connection((address, port), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            failed.append((address, port, error.strerror or str(error)))
    return failed


def free_bytes(path: str) -> int:
    """Returns the free bytes of the disk of the nearest folder above `path` that exists."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path or "/").free


def available_memory() -> int | None:
    """Returns the bytes of memory that are available, where Linux tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def look(request: dict[str, Any]) -> tuple[dict[str, Any], list[socket.socket]]:
    """Returns what there is on this host, and the sockets that hold its ports."""
    servers = {port: listen(request["address"], port) for port in request["ports"]}
    report = {
        "time": time.time(),
        "hostname": socket.gethostname(),
        "versions": versions(),
        "taken": {port: why for port, why in servers.items() if isinstance(why, str)},
        "unresolved": unresolved(request["names"]),
        "code": code_digest(),
        "missing": [path for path in request["paths"] if not os.path.exists(path)],
        "disk_free": free_bytes(request["folder"]),
        "shm_free": free_bytes("/dev/shm") if os.path.isdir("/dev/shm") else None,
        "memory_available": available_memory(),
        "proxies": [
            name for name in PROXIES if os.environ.get(name, os.environ.get(name.upper()))
        ],
        "gpus": len(glob.glob("/proc/driver/nvidia/gpus/*")),
    }
    return report, [server for server in servers.values() if isinstance(server, socket.socket)]


def main() -> None:
    """Looks, waits for the others, tries to reach them."""
    # Run with -I; what PYTHONPATH adds counts for the workers, so it counts here.
    sys.path += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    report, servers = look(json.loads(sys.argv[-1]))
    print(json.dumps(report), flush=True)
    line = sys.stdin.readline()
    if line.strip():
        print(json.dumps(unreached([(peer[0], peer[1]) for peer in json.loads(line)])), flush=True)
    sys.stdin.readline()  # the others may still be trying to reach this host
    for server in servers:
        server.close()


if __name__ == "__main__":
    main()
