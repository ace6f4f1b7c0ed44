"""What short commands may import: their start is most of their time.

A module that a command comes to need is added to its contract here; one that only some of its
runs need is imported where they need it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import contextlib, io, sys
from tenfold.launcher.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    status = main(sys.argv[1:])
assert status == 0, status
print(*sorted(sys.modules))
"""

# Each takes 5 ms or more, or what imports it does.
SLOW = {
    "asyncio", "concurrent", "email", "multiprocessing", "statistics", "tarfile", "zipfile",
    "tensorflow", "keras", "numpy", "PIL", "pyarrow", "fsspec", "rich", "matplotlib", "psutil",
    "setuptools",
}  # fmt: skip

# Modules, and folders of modules, of tenfold.
FRAME = {"data.errors", "launcher.cli.main"}
PLAN = FRAME | {
    "data.planning", "data.runtime", "data.units", "launcher.cli.commands.plan",
    "launcher.cli.flags", "launcher.cli.write_flags",
}  # fmt: skip
TRAINING_FLAGS = {
    "data.planning.batch_shares", "data.planning.lanes", "data.planning.layout",
    "data.planning.mixture_shares",
    "data.reading.decoding.augment_options", "data.reading.decoding.decoders",
    "data.reading.feeding.feed_options", "data.runtime.user_code", "data.storage.cache_options",
    "data.units", "launcher.cli.feed_flags", "launcher.cli.flags", "launcher.cli.launch_flags",
    "launcher.cli.train_flags", "launcher.cli.write_flags", "models.model_registry",
    "models.run_rules.figures", "models.run_rules.stop_rules", "models.train_config",
}  # fmt: skip
LAUNCH = (
    FRAME
    | TRAINING_FLAGS
    | {
        "data.format.json_fields", "data.planning.worker_variables", "data.runtime.cpus",
        "data.runtime.deferred_keras", "data.runtime.installed_versions",
        "data.runtime.tensorflow_hooks", "data.runtime.tensorflow_version", "data.storage.folder",
        "data.storage.local_folder", "data.storage.open_folder",
        "launcher.backends.backend_registry", "launcher.backends.base", "launcher.backends.local",
        "launcher.backends.ports", "launcher.cli.commands.launch", "launcher.cli.prepare",
        "launcher.display", "launcher.host_checks", "launcher.job", "launcher.supervisor",
        "launcher.worker", "models.output_files",
    }
)  # fmt: skip
LAUNCH_WITHOUT = {
    "launcher.cli.prepare.exchange_check", "launcher.cli.prepare.preflight",
    "launcher.display.live_layout", "launcher.host_checks.interface_address", "launcher.job.lease",
    "launcher.job.members", "launcher.supervisor.hosts.host_servers",
    "launcher.supervisor.members", "launcher.supervisor.run_build_check",
    "launcher.worker.inference", "launcher.worker.trainer",
}  # fmt: skip
WRITE = PLAN - {"launcher.cli.commands.plan"} | {
    "data.format", "data.sources.base", "data.sources.features", "data.sources.image_folders",
    "data.sources.open_source", "data.sources.record_files.tar_members",
    "data.sources.scanned_files", "data.sources.tables.open_table",
    "data.sources.tables.table_files", "data.storage.folder", "data.storage.local_folder",
    "data.storage.open_folder", "data.transforms", "data.writing", "launcher.cli.commands.write",
}  # fmt: skip
WRITE_WITHOUT = {"data.format.columns", "data.writing.beam", "data.writing.encode_columns"}

CONTRACTS = {
    "--help": (FRAME, set()),
    "plan --dataset_size=10GB --num_workers=4": (PLAN, set()),
    "launch --help": (
        LAUNCH | {"launcher.backends", "data.planning", "data.runtime"},
        {"launcher.job.lease"},
    ),
    "launch --num_workers=2 --run_dir={tmp}/run -- true": (LAUNCH, LAUNCH_WITHOUT),
    "write --source={tmp}/images --output={tmp}/shards": (WRITE, WRITE_WITHOUT),
}


def imported(command: str) -> set[str]:
    """Return the modules that a command has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *command.split()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def is_within(name: str, entries: set[str]) -> bool:
    """Whether a module is one of `entries`, or in one of them, or a package of one."""
    return any(f"{name}.".startswith(f"{entry}.") for entry in entries)


@pytest.fixture
def tmp(tmp_path: Path, digits: Path) -> Path:
    (tmp_path / "images").symlink_to(digits)
    return tmp_path


@pytest.mark.parametrize("command", CONTRACTS)
def test_command_imports_no_more_than_its_contract(command: str, tmp: Path) -> None:
    allowed, forbidden = CONTRACTS[command]
    found = imported(command.format(tmp=tmp))
    assert {name for name in found if name.partition(".")[0] in SLOW} == set()
    own = {name.removeprefix("tenfold.") for name in found if name.startswith("tenfold.")}
    packages = {name for name in own if any(other.startswith(f"{name}.") for other in own)}
    modules = own - packages
    assert {name for name in modules if not is_within(name, allowed)} == set()
    assert {name for name in modules if is_within(name, forbidden)} == set()


def test_probe_sees_what_is_imported(tmp: Path) -> None:
    """A transform of pixels needs Pillow: the contract above can be broken."""
    found = imported(
        f"write --source={tmp}/images --output={tmp}/shards --transform=resize:4 --processes=1"
    )
    assert "PIL" in found
    assert not is_within("data.transforms.resize", FRAME)
