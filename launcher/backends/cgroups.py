"""Control groups, version 1 and 2, that limit and freeze simulated hosts: planned, not created.

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
    """Cores and bytes of memory of a host; None: those of this machine."""

    cpus: float | None = None
    memory_bytes: int | None = None

    @property
    def controllers(self) -> tuple[str, ...]:
        """The kernel's names of the limited resources."""
        bounded = {"cpu": self.cpus, "memory": self.memory_bytes}
        return tuple(name for name, value in bounded.items() if value is not None)


@dataclass(frozen=True)
class Cgroup:
    """A control group to create: its folder, and the text to write to each of its files."""

    path: str
    files: dict[str, str]


def plan_cgroups(limits: HostLimits, name: str, *, root: Path = ROOT) -> tuple[Cgroup, ...]:
    """Return the control groups that hold a host to `limits`.

    Args:
      limits: the limits; without any, no group is needed.
      name: the folder name of each group.
      root: where the control groups are mounted.

    Raises:
      UserError: the kernel has no controller for a limit.
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
class FreezerFiles:
    """A control group whose processes stop and continue together, by a write to its `file`."""

    path: str
    file: str
    frozen: str
    thawed: str


def plan_freezer(
    cgroups: tuple[Cgroup, ...], name: str, *, root: Path = ROOT
) -> FreezerFiles | None:
    """Return the freezer of a host that is in `cgroups`; None where this kernel has none."""
    if (root / "cgroup.controllers").exists():
        # In version 2 a process is in one group only, so the group with the limits has to do.
        path = cgroups[0].path if cgroups else str(root / name)
        return FreezerFiles(path, "cgroup.freeze", "1", "0")
    if (root / "freezer" / "cgroup.procs").exists():
        return FreezerFiles(str(root / "freezer" / name), "freezer.state", "FROZEN", "THAWED")
    return None


def _quota_us(cpus: float) -> int:
    return max(1000, round(cpus * PERIOD_US))  # the kernel refuses less than a millisecond


def _v2_controllers(root: Path) -> set[str]:
    """The version 2 controllers that groups directly below the root can use."""
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
