"""The probe: inspects one host before a launch. It needs no package but this one.

Its last argument is the request, a JSON object: address and ports (that should be free there),
names (that should resolve), folder (on the disk to measure), paths (that should exist),
cuda_visible_devices (of the workers; null: as in the environment), code (whether to read this
package's code for its digest). The probe

1. prints its report as one line of JSON, and keeps the ports open;
2. reads a line with peers, a JSON list of [address, port], from standard input;
3. prints the peers that it cannot reach, with the reasons;
4. waits for its standard input to close before it closes the ports.

With ``interfaces`` as its last argument it prints the addresses of this host's interfaces only.
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from typing import Any, Final

CONNECT_TIMEOUT_S: Final = 2.0
# The distributions that hold each package.
PACKAGES: Final = {
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-rocm", "tf-nightly"),
    "keras": ("keras", "keras-nightly"),
    "tenfold": ("tenfold",),
}
NVIDIA_SMI_TIMEOUT_S: Final = 15.0
_SIOCGIFADDR: Final = 0x8915  # man 7 netdevice
PROXIES: Final = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that must be equal on all hosts."""
    # Not before `main` has extended sys.path.
    from tenfold.data.runtime.installed_versions import installed_versions

    installed = installed_versions(name for names in PACKAGES.values() for name in names)
    found: dict[str, str | None] = {"python": sys.version.split()[0]}
    for package, distributions in PACKAGES.items():
        found[package] = next(filter(None, map(installed.get, distributions)), None)
    return found


def code_digest() -> str:
    """Return a digest of this package's Python files, to compare hosts."""
    import glob
    import hashlib

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
    """Return a listening socket, or the reason for its failure."""
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
    """Return the names that do not resolve, with the reason."""
    failed = {}
    for name in names:
        try:
            socket.getaddrinfo(name, None)
        except OSError as error:
            failed[name] = error.strerror or str(error)
    return failed


def unreached(peers: list[tuple[str, int]]) -> list[tuple[str, int, str]]:
    """Return the peers that refuse a connection or do not answer, with the reason."""
    failed = []
    for address, port in peers:
        try:
            socket.create_connection((address, port), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            failed.append((address, port, error.strerror or str(error)))
    return failed


def free_bytes(path: str) -> int:
    """Return the free bytes on the disk of `path`, or of its nearest ancestor that exists."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path or "/").free


def available_memory() -> int | None:
    """Return the bytes of available memory; None where the system is not Linux."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def interface_addresses() -> dict[str, str]:
    """Return the IPv4 address of each network interface that has one (Linux only)."""
    found = {}
    if sys.platform != "linux":
        return found
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            with contextlib.suppress(OSError):  # it has no address
                answer = fcntl.ioctl(handle, _SIOCGIFADDR, request)
                found[name] = socket.inet_ntoa(answer[20:24])
    return found


def interface_of(address: str) -> str:
    """Return the interface that has the address, as this host resolves it; "" if none has."""
    try:
        own = socket.gethostbyname(address)
    except OSError:
        return ""
    found = interface_addresses()
    # All of 127.0.0.0/8 is on the loopback interface, whose own address is 127.0.0.1.
    return next((k for k, v in found.items() if v == own), "lo" if own.startswith("127.") else "")


def inspect_gpus(chosen: str | None) -> dict[str, Any]:
    """Return the GPUs that workers may use, and the versions of the driver and its CUDA."""
    # Not before `main` has extended sys.path.
    from tenfold.launcher.worker.agent import visible_gpus

    chosen_env = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    names = visible_gpus({**os.environ, **chosen_env})
    driver, cuda = (_ask_nvml() or _ask_nvidia_smi()) if names else ("", "")
    return {"names": names, "driver": driver, "cuda": cuda}


def _ask_nvml() -> tuple[str, str] | None:
    """Return the versions of the driver and its CUDA by nvidia-ml-py; None where it is missing."""
    try:
        import pynvml

        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
        major, minor = divmod(pynvml.nvmlSystemGetCudaDriverVersion_v2(), 1000)
    except Exception:  # noqa: BLE001  a broken driver raises the library's own errors
        return None
    return str(driver), f"{major}.{minor // 10}"


def _ask_nvidia_smi() -> tuple[str, str]:
    try:
        shown = subprocess.run(
            ["nvidia-smi"], capture_output=True, text=True, errors="replace",
            timeout=NVIDIA_SMI_TIMEOUT_S, check=False,
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "", ""
    driver = re.search(r"Driver Version: *([0-9.]+)", shown)
    cuda = re.search(r"CUDA Version: *([0-9.]+)", shown)
    return driver[1] if driver else "", cuda[1] if cuda else ""


def tensorflow_cuda() -> str | None:
    """Return the version of CUDA that TensorFlow was built for, without importing it.

    Returns:
      The version, "" for a build without CUDA; None where that is not known.
    """
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = os.path.join(spec.submodule_search_locations[0], "python", "platform", "build_info.py")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return None
    version = re.search(
        r"'cuda_version', *'([0-9.]+)'|[\"']cuda_version[\"']: *[\"']([0-9.]+)", text
    )
    if version:
        return version[1] or version[2]
    return "" if "is_cuda_build" in text else None


def inspect_host(request: dict[str, Any]) -> tuple[dict[str, Any], list[socket.socket]]:
    """Return the report of this host, and the sockets that hold its ports."""
    servers = {port: listen(request["address"], port) for port in request["ports"]}
    report = {
        "time": time.time(),
        "hostname": socket.gethostname(),
        "versions": versions(),
        "taken": {port: why for port, why in servers.items() if isinstance(why, str)},
        "unresolved": unresolved(request["names"]),
        "code": code_digest() if request["code"] else "",
        "missing": [path for path in request["paths"] if not os.path.exists(path)],
        "disk_free": free_bytes(request["folder"]),
        "shm_free": free_bytes("/dev/shm") if os.path.isdir("/dev/shm") else None,
        "memory_available": available_memory(),
        "proxies": [
            name for name in PROXIES if os.environ.get(name, os.environ.get(name.upper()))
        ],
        "gpus": inspect_gpus(request["cuda_visible_devices"]),
        "tensorflow_cuda": tensorflow_cuda(),
        "interface": interface_of(request["address"]),
        "interfaces": interface_addresses(),
    }
    return report, [server for server in servers.values() if isinstance(server, socket.socket)]


def main() -> None:
    """Run the probe: report, peers, unreached peers."""
    # The probe runs with -I, which ignores PYTHONPATH; the workers do not ignore it.
    sys.path += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if sys.argv[-1] == "interfaces":
        print(json.dumps(interface_addresses()))
        return
    report, servers = inspect_host(json.loads(sys.argv[-1]))
    print(json.dumps(report), flush=True)
    line = sys.stdin.readline()
    if line.strip():
        print(json.dumps(unreached([(peer[0], peer[1]) for peer in json.loads(line)])), flush=True)
    sys.stdin.readline()  # other hosts may still be connecting to this one
    for server in servers:
        server.close()


if __name__ == "__main__":
    main()
