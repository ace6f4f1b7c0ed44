"""Control groups that bound what a simulated host may use, of version 1 and 2 of the kernel's.

Formats: docs.kernel.org/admin-guide/cgroup-v2.html, cgroup-v1/memory.html,
cgroup-v1/freezer-subsystem.html, scheduler/sched-bwc.html.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenfold.data.errors import UserError

ROOT: Final = Path("/sys/fs/cgroup")
PERIOD_US: Final = 100_000
_V1_FOLDER: Final = {"cpu": "cpu", "memory": "memory"}


@dataclass(frozen=True)
class HostLimits:
    """How many cores, and how many bytes of memory, a host has; None: as many as this one."""

    cpus: float | None = None
    memory_bytes: int | None = None

    @property
    def controllers(self) -> tuple[str, ...]:
        """The kernel's names of what is bounded."""
        bounded = {"cpu": self.cpus, "memory": self.memory_bytes}
        return tuple(name for name, value in bounded.items() if value is not None)


@dataclass(frozen=True)
class Cgroup:
    """A control group to make: its folder, and what to write to which of its files."""

    path: str
    files: dict[str, str]


def plan_cgroups(limits: HostLimits, name: str, *, root: Path = ROOT) -> tuple[Cgroup, ...]:
    """Returns the control groups called `name` that hold a host to `limits`.

    Raises:
      UserError: the kernel has no controller for one of them.
    """
    if not limits.controllers:
        return ()
    if set(limits.controllers) <= _v2_controllers(root):
        files = {}
        if limits.cpus is not None:
            files["cpu.max"] = f"{_quota_us(limits.cpus)} {PERIOD_US}"
        if limits.memory_bytes is not None:
            files["memory.max"] = str(limits.memory_bytes)
        return (Cgroup(str(root / name), files),)
    return tuple(_v1_cgroup(limits, controller, name, root) for controller in limits.controllers)


@dataclass(frozen=True)
class Freezer:
    """A control group whose processes can be held all at once: what is written to `file`."""

    path: str
    file: str
    frozen: str
    thawed: str


def plan_freezer(cgroups: tuple[Cgroup, ...], name: str, *, root: Path = ROOT) -> Freezer | None:
    """Returns what freezes a host called `name` that has `cgroups`; None where nothing does."""
    if (root / "cgroup.controllers").exists():
        # In version 2 a process is in one group alone: the one that bounds it has to do.
        path = cgroups[0].path if cgroups else str(root / name)
        return Freezer(path, "cgroup.freeze", "1", "0")
    if (root / "freezer" / "cgroup.procs").exists():
        return Freezer(str(root / "freezer" / name), "freezer.state", "FROZEN", "THAWED")
    return None


def _quota_us(cpus: float) -> int:
    return max(1000, round(cpus * PERIOD_US))  # the kernel takes no less than a millisecond


def _v2_controllers(root: Path) -> set[str]:
    """The controllers that version 2 passes on to groups right below its root."""
    try:
        return set((root / "cgroup.subtree_control").read_text().split())
    except OSError:
        return set()


def _v1_cgroup(limits: HostLimits, controller: str, name: str, root: Path) -> Cgroup:
    folder = root / _V1_FOLDER[controller]
    if not (folder / "cgroup.procs").exists():
        flag = {"cpu": "--host_cpus", "memory": "--host_memory"}[controller]
        raise UserError(
            f"this machine has no control group for {controller} ({folder}): leave {flag} out"
        )
    if controller == "memory":
        return Cgroup(str(folder / name), {"memory.limit_in_bytes": str(limits.memory_bytes)})
    assert limits.cpus is not None
    quota = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(_quota_us(limits.cpus))}
    return Cgroup(str(folder / name), quota)
