"""Estimates compared with the lanes that real workers read, and short measured runs."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.planning.lanes import assign_lanes
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.launcher.simulation.estimated import (
    DataSet,
    Rates,
    estimate,
    storage_load,
    worker_records,
)
from tenfold.launcher.simulation.measured import Measured, efficiency, read_epoch
from tenfold.models.metrics_line import BottleneckLine, EpochMetrics, ReceiptLine


@given(
    lanes_per_worker=st.integers(1, 5),
    num_workers=st.integers(1, 12),
    shards_per_lane=st.integers(1, 4),
    extra=st.integers(0, 500),
)
def test_worker_records_equal_shards_dealt_to_lanes(
    lanes_per_worker, num_workers, shards_per_lane, extra
):
    lanes = lanes_per_worker * num_workers
    shards = lanes * shards_per_lane
    data = DataSet(shards + extra, 10**6, shards, lanes)
    each, more = divmod(data.num_records, shards)
    sizes = [each + (shard < more) for shard in range(shards)]
    dealt = [sum(sizes[lane::lanes]) for lane in range(lanes)]
    wanted = [
        sum(dealt[worker * lanes_per_worker : (worker + 1) * lanes_per_worker])
        for worker in range(num_workers)
    ]
    assert [worker_records(data, worker, num_workers) for worker in range(num_workers)] == wanted
    found = estimate(data, num_workers=num_workers, global_batch_size=lanes, rates=Rates())
    assert found.steps_per_epoch == min(dealt)
    assert (found.records_per_worker_min, found.records_per_worker_max) == (
        min(wanted), max(wanted),
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, 3, 4])
def test_estimate_agrees_with_real_lanes(tenfold, digit_shards, count):
    done = tenfold(
        "simulate", "--dry_run", f"--shards={digit_shards}", f"--num_workers={count}",
        "--global_batch_size=32", "--format=json",
    )  # fmt: skip
    assert done.status == 0, done.err
    (estimated,) = json.loads(done.out)
    manifest = read_manifest(str(digit_shards))
    real = assign_lanes(manifest, "train", num_workers=count, global_batch_size=32)
    assert estimated["steps_per_epoch"] == real[0].steps_per_epoch
    shards = [len(worker.shards) for worker in real]
    assert estimated["shards_per_worker_min"] == min(shards)
    assert estimated["shards_per_worker"] == max(shards)
    records = [worker.num_records for worker in real]
    assert (estimated["records_per_worker_min"], estimated["records_per_worker_max"]) == (
        min(records), max(records),
    )  # fmt: skip


def test_estimated_times_match_hand_calculation():
    data = DataSet(num_records=1000, num_bytes=10**8, num_shards=8, num_lanes=4)
    rates = Rates(
        records_per_s=50, read_bytes_per_s=10**6, network_bits_per_s=8 * 10**8,
        gradient_bytes=10**8, request_bytes=10**7,
    )  # fmt: skip
    found = estimate(data, num_workers=4, global_batch_size=100, rates=rates)
    assert found.compute_s == pytest.approx(25 / 50)
    assert found.input_s == pytest.approx(25 * 10**5 / 10**6)
    assert found.communication_s == pytest.approx(2 * 3 / 4 * 10**8 / 10**8)
    assert found.step_s == pytest.approx(2.5 + 1.5)
    assert found.epoch_s == pytest.approx(10 * 4.0)
    load = storage_load(data, found, rates)
    assert load is not None
    assert load.bytes_per_s == pytest.approx(10**8 / 40)
    assert load.requests_per_epoch == 8 * 2
    alone = estimate(data, num_workers=1, global_batch_size=100, rates=rates)
    assert alone.communication_s == 0


def test_estimate_of_8000_hosts_and_4_million_shards(tenfold):
    done = tenfold(
        "simulate", "--dry_run", "--dataset_size=1PB", "--num_examples=10000000000",
        "--num_workers=8000", "--global_batch_size=160000", "--read_rate=200MB", "--format=json",
    )  # fmt: skip
    (estimated,) = json.loads(done.out)
    assert estimated["shards_per_worker"] * estimated["num_workers"] >= 4_000_000
    assert estimated["steps_per_epoch"] * 160_000 + estimated["left_out"] == 10**10


@settings(max_examples=20)
@given(st.integers(1, 10**15), st.integers(1, 2000))
def test_too_few_records_for_a_step_are_refused(num_bytes, workers):
    data = DataSet(workers, num_bytes, workers, workers)
    with pytest.raises(UserError, match="too few"):
        estimate(data, num_workers=workers, global_batch_size=2 * workers, rates=Rates())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dry_run"], "either --shards=PATH or --dataset_size"),
        (["--dry_run", "--dataset_size=1GB"], "--num_examples is missing"),
        (["--dry_run", "--model=cnn"], "--model cannot be combined with --dry_run"),
        (["--read_rate=1GB"], "--read_rate needs --dry_run"),
        ([], "--shards is missing"),
        (["--shards=nothing/here"], "nothing/here/manifest.json: --shards names"),
        (["--shards=x", "--plot=x.gif"], ".svg or .png"),
        (["--shards=gs://b/x"], "'gs://b/x' is out of reach of simulated hosts"),
        (["--shards=x", "--host_bandwidth=fast"], "host_bandwidth 'fast'"),
    ],
)
def test_wrong_flags_give_one_line_of_error(tenfold, flags, words):
    done = tenfold("simulate", *flags)
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert done.err.count("\n") == 1


def test_measurement_is_read_from_an_epoch_line():
    bottleneck = BottleneckLine(wait=(0.1, 0.3), decode=(0.0, 0.0), communication=0.5)
    receipt = ReceiptLine(640, 640, 0, exact=True)
    line = EpochMetrics(1, 40, 0.5, {}, 160.0, 0.3, receipt, 4.0, bottleneck=bottleneck)
    found = read_epoch(line, 2, steps=20)
    assert found == Measured(2, 20, 640, 5.0, 160.0, 0.3, 0.5)
    assert found.compute_share == pytest.approx(0.2)
    slow = replace(line, bottleneck=replace(bottleneck, communication=1.0))
    assert read_epoch(slow, 2, steps=20).communication_share == pytest.approx(0.7)
    one = Measured(1, 30, 960, 3.0, 100.0, 0.0, 0.0)
    assert efficiency([one, found], found) == pytest.approx(0.8)
    assert efficiency([one, found], one) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_measured_runs_agree_with_their_estimates(tenfold, digit_shards, tmp_path):
    if shutil.which("ip") is None:
        pytest.skip("needs the program ip: apt-get install iproute2")
    image = tmp_path / "scaling.svg"
    done = tenfold(
        "simulate", f"--shards={digit_shards}", "--num_workers=2", "--host_bandwidth=1gbit",
        "--format=json", f"--plot={image}",
    )  # fmt: skip
    if "simulated hosts cannot be created here" in done.err:
        pytest.skip(done.err)
    assert done.status == 0, done.err
    one, two = real = json.loads(done.out)
    assert [found["num_workers"] for found in real] == [1, 2]
    assert one["efficiency"] == 1
    assert one["communication_share"] == 0 < two["communication_share"]
    for found in real:
        assert found["steps_per_s"] * 64 == pytest.approx(found["records_per_s"])
    assert image.read_text().count("<svg") == 1
    done = tenfold(
        "simulate", "--dry_run", f"--shards={digit_shards}", "--num_workers=2",
        "--worker_counts=1,2", "--format=json",
    )  # fmt: skip
    for estimated, found in zip(json.loads(done.out), real, strict=True):
        assert estimated["steps_per_epoch"] == found["steps_per_epoch"]
        assert estimated["steps_per_epoch"] * 64 == found["records_per_epoch"]


# Reads one worker's shards for one epoch and prints the number of bytes that it read, for each of
# several numbers of workers.
READ = """
import sys
from tenfold.data.reading.dataset import worker_dataset
def read_bytes():
    return int(open("/proc/self/io").readline().split()[1])
shards, *counts = sys.argv[1:]
def read(count):
    for _ in worker_dataset(shards, global_batch_size=32, num_workers=count, worker_index=0,
                            epochs=1):
        pass
read(1)  # the first epoch also loads libraries
for count in map(int, counts):
    before = read_bytes()
    read(count)
    print(read_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_worker_reads_as_many_bytes_as_estimated(tenfold, digit_shards, tmp_path):
    """The kernel counts the bytes that a process reads, from the page cache too."""
    argv = [sys.executable, "-c", READ, str(digit_shards), "1", "4"]
    read = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path)
    for count, found in zip((1, 4), read.stdout.split(), strict=True):
        done = tenfold(
            "simulate", "--dry_run", f"--shards={digit_shards}", f"--num_workers={count}",
            "--global_batch_size=32", "--format=json",
        )  # fmt: skip
        (estimated,) = json.loads(done.out)
        assert int(found) == pytest.approx(estimated["bytes_per_worker"], rel=0.1)
