"""``tenfold simulate``: the speed with more hosts or a faster network, measured or estimated."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.planning.lanes import check_workers
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.planning.mixture_shares import check_one_folder
from tenfold.data.planning.plan_layout import plan_layout
from tenfold.data.runtime.cpus import usable_cpus
from tenfold.data.runtime.scratch_folder import scratch_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.units import format_duration, format_size, plural
from tenfold.launcher.backends.netns import OPTIONS, parse_rate, parse_shape
from tenfold.launcher.cli.flags import Arguments, FlagValues, define_counts, define_size
from tenfold.launcher.cli.prepare.reachability import check_reach
from tenfold.launcher.display.plots import check_plot_path
from tenfold.launcher.simulation.estimated import (
    DataSet,
    Estimate,
    Rates,
    StorageLoad,
    estimate,
    storage_load,
)
from tenfold.launcher.simulation.measured import Measured, efficiency, run_on
from tenfold.launcher.simulation.plot_scaling import plot_scaling

USAGE: Final = (
    "--shards=PATH [--host_bandwidth=1gbit] [--flag=value …]\n"
    "       tenfold simulate --dry_run --dataset_size=10TB --num_examples=N [--flag=value …]"
)
# Flags of an estimate (--dry_run) only, and flags of a measurement only.
_ESTIMATE_FLAGS: Final = (
    "dataset_size", "num_examples", "records_per_s", "read_rate", "gradient_size", "request_size",
)  # fmt: skip
_MEASUREMENT_FLAGS: Final = ("model", "host_cpus", "host_memory", "host_latency", "plot")
# Flags that a measurement passes on to `tenfold launch`.
_LAUNCH_FLAGS: Final = ("shards", "model", "global_batch_size", *(o.name for o in OPTIONS))


def define_flags(fv: FlagValues) -> None:
    """Define the flags of simulate."""
    text = partial(flags.DEFINE_string, flag_values=fv)
    number = partial(flags.DEFINE_integer, lower_bound=1, flag_values=fv)
    number("num_workers", 4, "largest number of hosts")
    define_counts(
        fv, "worker_counts", (), "further numbers of hosts (default: 1, 2, 4, … below num_workers)"
    )
    text("shards", None, "folder of shards to read, as 'tenfold write' made it")
    text("model", "cnn", "built-in name, module:function or file.py:function")
    number("global_batch_size", 64, "records per step over all hosts, at every number of hosts")
    for option in OPTIONS:
        text(option.name, None, option.help)
    text("plot", "", "plot to save, as scaling.svg or scaling.png")
    flags.DEFINE_bool(
        "dry_run", False, "estimate from sizes and rates instead of training", flag_values=fv
    )
    define_size(fv, "dataset_size", None, "dry run: size of the data set, instead of --shards")
    number("num_examples", None, "dry run: number of examples of --dataset_size")
    flags.DEFINE_float(
        "records_per_s", None, "dry run: records that one host trains on per second",
        lower_bound=1e-9, flag_values=fv,
    )  # fmt: skip
    define_size(fv, "read_rate", None, "dry run: bytes that one host reads per second")
    define_size(
        fv, "gradient_size", 0, "dry run: bytes of the gradients (4 per trainable parameter)"
    )
    define_size(fv, "request_size", 8 * 10**6, "dry run: bytes of one request to storage")
    flags.DEFINE_enum("format", "table", ["table", "json"], "format of the result", flag_values=fv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Print the speed for each number of hosts; return the exit status."""
    args.expect_none()
    parse_shape({o.name: fv[o.name].value for o in OPTIONS if fv[o.name].value})
    if fv.dry_run:
        _refuse(fv, _MEASUREMENT_FLAGS, "cannot be combined with --dry_run: leave it out")
        return _print_estimates(fv)
    _refuse(fv, _ESTIMATE_FLAGS, "needs --dry_run: add --dry_run or leave it out")
    return _print_measurements(fv)


def _refuse(fv: FlagValues, names: Sequence[str], rule: str) -> None:
    for name in names:
        if fv[name].present:
            raise UserError(f"--{name} {rule}")


def _host_counts(fv: FlagValues, default: Sequence[int]) -> list[int]:
    return sorted({*(fv.worker_counts or default), fv.num_workers})


# --- estimated ---


def _print_estimates(fv: FlagValues) -> int:
    rates = Rates(
        records_per_s=fv.records_per_s,
        read_bytes_per_s=fv.read_rate,
        network_bits_per_s=parse_rate(fv.host_bandwidth) if fv.host_bandwidth else None,
        gradient_bytes=fv.gradient_size,
        request_bytes=fv.request_size,
    )
    counts = _host_counts(fv, [])
    data = _data_set(fv, counts)
    estimates = [
        estimate(data, num_workers=count, global_batch_size=fv.global_batch_size, rates=rates)
        for count in counts
    ]
    pairs = [(found, storage_load(data, found, rates)) for found in estimates]
    if fv.format == "json":
        print(json.dumps([_estimate_json(*pair) for pair in pairs]))
    else:
        print("\n\n".join(_estimate_text(*pair) for pair in pairs))
    return 0


def _data_set(fv: FlagValues, counts: Sequence[int]) -> DataSet:
    if bool(fv.shards) == bool(fv.dataset_size):
        raise UserError("give either --shards=PATH or --dataset_size=10TB with --num_examples=N")
    if fv.shards:
        check_one_folder(fv.shards, "simulate")
        manifest = read_manifest(fv.shards)
        shards = manifest.split("train").shards
        sizes = [(shard.records, shard.bytes) for shard in shards]
        totals = [sum(column) for column in zip(*sizes, strict=True)]
        return DataSet(totals[0], totals[1], len(shards), manifest.num_lanes)
    if not fv.num_examples:
        raise UserError("--num_examples is missing: give the number of examples of --dataset_size")
    policy = LayoutPolicy(num_workers=fv.num_workers, worker_counts=tuple(counts))
    layout = plan_layout(fv.dataset_size, fv.num_examples, policy)
    return DataSet(fv.num_examples, fv.dataset_size, layout.num_shards, layout.num_lanes)


def _estimate_json(found: Estimate, load: StorageLoad | None) -> dict[str, Any]:
    times = {"step_s": found.step_s, "epoch_s": found.epoch_s}
    return {**asdict(found), **times, "storage": asdict(load) if load else None}


def _range(low: int, high: int) -> str:
    return f"{low:,}" + (f" to {high:,}" if high > low else "")


def _estimate_text(found: Estimate, load: StorageLoad | None) -> str:
    rows = [
        ("hosts", f"{found.num_workers:,}"),
        ("shards per host", _range(found.shards_per_worker_min, found.shards_per_worker)),
        ("records per host", _range(found.records_per_worker_min, found.records_per_worker_max)),
        ("bytes per host", format_size(found.bytes_per_worker)),
        ("steps per epoch", f"{found.steps_per_epoch:,} ({found.left_out:,} records left over)"),
    ]
    if load:
        parts = {
            "compute": found.compute_s,
            "input": found.input_s,
            "communication": found.communication_s,
        }
        shown = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in parts.items() if seconds)
        rows += [
            ("step", f"{found.step_s:.3g} s: {shown}"),
            ("epoch", format_duration(found.epoch_s)),
            ("storage", f"{format_size(round(load.bytes_per_s))}/s, {load.requests_per_s:,.1f} "
             f"requests/s, {load.requests_per_epoch:,} requests per epoch"),
        ]  # fmt: skip
    else:
        rows.append(("epoch", "give --records_per_s, --read_rate or --host_bandwidth for times"))
    return "\n".join(f"{name:<18} {text}" for name, text in rows)


# --- measured ---


def _print_measurements(fv: FlagValues) -> int:
    if not fv.shards:
        raise UserError("--shards is missing: give shards to train on, or --dry_run to estimate")
    if fv.plot:
        check_plot_path(fv.plot)
    check_reach("netns", fv.shards)
    runs = _measure(fv, _measurable_counts(fv))
    if fv.plot:
        plot_scaling(runs, fv.plot, title=f"{fv.model}, batch {fv.global_batch_size}")
        print(f"saved {fv.plot}", file=sys.stderr)
    if fv.format == "json":
        print(json.dumps([_measured_json(runs, run) for run in runs]))
    else:
        print(_measured_text(runs))
    return 0


def _measurable_counts(fv: FlagValues) -> list[int]:
    """Return the numbers of hosts, after checking that there is a lane for each."""
    lanes = read_manifest(fv.shards).num_lanes
    doubling = [2**i for i in range(fv.num_workers.bit_length())]
    counts = _host_counts(fv, [count for count in doubling if count <= lanes])
    for count in counts:
        check_workers(lanes, count, fv.global_batch_size)
    return counts


def _measure(fv: FlagValues, counts: Sequence[int]) -> list[Measured]:
    """Train on each number of hosts in turn."""
    given = [name for name in _LAUNCH_FLAGS if fv[name].value is not None]
    launch_flags = [f"--{name}={fv[name].value}" for name in given]
    if fv.host_cpus is None and os.geteuid() == 0:
        # A host gets the same CPUs at every number of hosts: a single host must not have them all.
        launch_flags.append(f"--host_cpus={usable_cpus() / fv.num_workers:g}")
    runs = []
    with scratch_folder("tenfold-simulate-") as folder:
        for count in counts:
            hosts = plural(count, "simulated host")
            print(f"[tenfold] running on {hosts}", file=sys.stderr, flush=True)
            runs.append(run_on(count, launch_flags, run_dir=Path(folder, str(count))))
    return runs


def _measured_json(runs: Sequence[Measured], run: Measured) -> dict[str, Any]:
    derived = {"compute_share": run.compute_share, "efficiency": efficiency(runs, run)}
    return {**asdict(run), **derived}


def _measured_text(runs: Sequence[Measured]) -> str:
    lines = ["hosts   steps/s   records/s   efficiency   compute   input   communication"]
    lines += [
        f"{run.num_workers:>5} {run.steps_per_s:>9.2f} {run.records_per_s:>11,.0f} "
        f"{efficiency(runs, run):>12.0%} {run.compute_share:>9.0%} {run.input_share:>7.0%} "
        f"{run.communication_share:>15.0%}"
        for run in runs
    ]
    return "\n".join(lines)
