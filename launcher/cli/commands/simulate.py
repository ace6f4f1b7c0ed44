"""``tenfold simulate``: what more hosts or a faster network would bring."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.planning.lanes import check_divides
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.planning.plan_layout import plan_layout
from tenfold.data.runtime.process_pool import usable_cpus
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.units import format_duration, format_size
from tenfold.launcher.backends.netns import OPTIONS, parse_rate, parse_shape
from tenfold.launcher.cli.flags import Arguments, FlagValues, define_counts, define_size
from tenfold.launcher.cli.preflight import check_reach
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
_ON_PAPER: Final = (
    "dataset_size", "num_examples", "records_per_s", "read_rate", "gradient_size", "request_size",
)  # fmt: skip
_FOR_REAL: Final = ("model", "host_cpus", "host_memory", "host_latency", "plot")
_PASSED_ON: Final = ("shards", "model", "global_batch_size", *(o.name for o in OPTIONS))


def define_flags(fv: FlagValues) -> None:
    """Define the flags of simulate."""
    text = partial(flags.DEFINE_string, flag_values=fv)
    number = partial(flags.DEFINE_integer, lower_bound=1, flag_values=fv)
    number("num_workers", 4, "the largest number of hosts")
    define_counts(fv, "worker_counts", (), "other numbers of hosts (default: 1, 2, 4, … below it)")
    text("shards", None, "folder of shards to read, as 'tenfold write' made it")
    text("model", "cnn", "built-in name, module:function or file.py:function")
    number("global_batch_size", 64, "records per step over all hosts, the same at every number")
    for option in OPTIONS:
        text(option.name, None, option.help)
    text("plot", "", "image to save, as scaling.svg or scaling.png")
    flags.DEFINE_bool("dry_run", False, "on paper: from sizes and rates", flag_values=fv)
    define_size(fv, "dataset_size", None, "on paper: bytes of the data set, instead of --shards")
    number("num_examples", None, "on paper: its examples")
    flags.DEFINE_float(
        "records_per_s", None, "on paper: records that one host computes in a second",
        lower_bound=1e-9, flag_values=fv,
    )  # fmt: skip
    define_size(fv, "read_rate", None, "on paper: bytes that one host reads in a second")
    define_size(fv, "gradient_size", 0, "on paper: bytes of gradients (4 a trainable parameter)")
    define_size(fv, "request_size", 8 * 10**6, "on paper: bytes of one request to storage")
    flags.DEFINE_enum("format", "table", ["table", "json"], "how to print it", flag_values=fv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Print one line per number of hosts; returns the exit status."""
    args.expect_none()
    parse_shape({o.name: fv[o.name].value for o in OPTIONS if fv[o.name].value})
    _refuse(fv, _FOR_REAL if fv.dry_run else _ON_PAPER, dry_run=fv.dry_run)
    return _on_paper(fv) if fv.dry_run else _for_real(fv)


def _refuse(fv: FlagValues, names: Sequence[str], *, dry_run: bool) -> None:
    for name in names:
        if fv[name].present:
            raise UserError(f"--{name} goes {'without' if dry_run else 'with'} --dry_run")


def _counts(fv: FlagValues, others: Sequence[int]) -> list[int]:
    return sorted({*(fv.worker_counts or others), fv.num_workers})


# --- on paper ---


def _on_paper(fv: FlagValues) -> int:
    rates = Rates(
        records_per_s=fv.records_per_s,
        read_bytes_per_s=fv.read_rate,
        network_bits_per_s=parse_rate(fv.host_bandwidth) if fv.host_bandwidth else None,
        gradient_bytes=fv.gradient_size,
        request_bytes=fv.request_size,
    )
    counts = _counts(fv, [])
    data = _data_set(fv, counts)
    found = [
        estimate(data, num_workers=count, global_batch_size=fv.global_batch_size, rates=rates)
        for count in counts
    ]
    loads = [storage_load(data, one, rates) for one in found]
    if fv.format == "json":
        print(json.dumps([_paper_json(one, load) for one, load in zip(found, loads, strict=True)]))
    else:
        print("\n\n".join(_paper_text(*pair) for pair in zip(found, loads, strict=True)))
    return 0


def _data_set(fv: FlagValues, counts: Sequence[int]) -> DataSet:
    if bool(fv.shards) == bool(fv.dataset_size):
        raise UserError("give either --shards=PATH or --dataset_size=10TB with --num_examples=N")
    if fv.shards:
        manifest = read_manifest(fv.shards)
        shards = manifest.split("train").shards
        sizes = [(shard.records, shard.bytes) for shard in shards]
        totals = [sum(column) for column in zip(*sizes, strict=True)]
        return DataSet(totals[0], totals[1], len(shards), manifest.num_lanes)
    if not fv.num_examples:
        raise UserError("--num_examples is missing: the examples of --dataset_size")
    policy = LayoutPolicy(num_workers=fv.num_workers, worker_counts=tuple(counts))
    layout = plan_layout(fv.dataset_size, fv.num_examples, policy)
    return DataSet(fv.num_examples, fv.dataset_size, layout.num_shards, layout.num_lanes)


def _paper_json(found: Estimate, load: StorageLoad | None) -> dict[str, Any]:
    times = {"step_s": found.step_s, "epoch_s": found.epoch_s}
    return {**asdict(found), **times, "storage": asdict(load) if load else None}


def _paper_text(found: Estimate, load: StorageLoad | None) -> str:
    least, most = found.records_per_worker_min, found.records_per_worker_max
    rows = [
        ("hosts", f"{found.num_workers:,}"),
        ("files per host", f"{found.shards_per_worker:,}"),
        ("records per host", f"{least:,}" + (f" to {most:,}" if most > least else "")),
        ("bytes per host", format_size(found.bytes_per_worker)),
        ("steps per epoch", f"{found.steps_per_epoch:,} ({found.left_out:,} records left out)"),
    ]
    if load:
        parts = {"compute": found.compute_s, "input": found.input_s}
        told = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in parts.items() if seconds)
        rows += [
            ("step", f"{found.step_s:.3g} s: {told}, communication {found.communication_s:.3g} s"),
            ("epoch", format_duration(found.epoch_s)),
            ("storage", f"{format_size(round(load.bytes_per_s))}/s, "
             f"{load.requests_per_s:,.1f} requests/s, {load.requests_per_epoch:,} an epoch"),
        ]  # fmt: skip
    else:
        rows.append(("epoch", "give --records_per_s, --read_rate or --host_bandwidth for times"))
    return "\n".join(f"{name:<18} {text}" for name, text in rows)


# --- for real ---


def _for_real(fv: FlagValues) -> int:
    if not fv.shards:
        raise UserError("--shards is missing: what to train on, or give --dry_run")
    if fv.plot:
        check_plot_path(fv.plot)
    check_reach("netns", fv.shards)
    lanes = read_manifest(fv.shards).num_lanes
    doubling = [2**i for i in range(fv.num_workers.bit_length())]
    counts = _counts(fv, [count for count in doubling if lanes % count == 0])
    for count in counts:
        check_divides(lanes, count, fv.global_batch_size)
    passed = [f"--{name}={fv[name].value}" for name in _PASSED_ON if fv[name].value is not None]
    if fv.host_cpus is None and os.geteuid() == 0:
        # All hosts alike at every number of them, as far as this machine's cores go.
        passed.append(f"--host_cpus={usable_cpus() / fv.num_workers:g}")
    found = []
    with tempfile.TemporaryDirectory(prefix="tenfold-simulate-") as folder:
        for count in counts:
            hosts = "1 simulated host" if count == 1 else f"{count} simulated hosts"
            print(f"[tenfold] running on {hosts}", file=sys.stderr, flush=True)
            found.append(run_on(count, passed, run_dir=Path(folder, str(count))))
    if fv.plot:
        plot_scaling(found, fv.plot, title=f"{fv.model}, batch {fv.global_batch_size}")
        print(f"saved {fv.plot}", file=sys.stderr)
    print(json.dumps([_real_json(found, one) for one in found]) if fv.format == "json"
          else _real_text(found))  # fmt: skip
    return 0


def _real_json(found: Sequence[Measured], one: Measured) -> dict[str, Any]:
    derived = {"compute_share": one.compute_share, "efficiency": efficiency(found, one)}
    return {**asdict(one), **derived}


def _real_text(found: Sequence[Measured]) -> str:
    lines = ["hosts   steps/s   records/s   efficiency   compute   input   communication"]
    lines += [
        f"{one.num_workers:>5} {one.steps_per_s:>9.2f} {one.records_per_s:>11,.0f} "
        f"{efficiency(found, one):>12.0%} {one.compute_share:>9.0%} {one.input_share:>7.0%} "
        f"{one.communication_share:>15.0%}"
        for one in found
    ]
    return "\n".join(lines)
