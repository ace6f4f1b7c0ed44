"""`tenfold bench` on real shards."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tenfold.launcher.cli.commands.bench import limit_of


def test_bench_reports_rates_and_accelerators_fed(tenfold: Any, digit_shards: Path) -> None:
    flags = (f"--shards={digit_shards}", "--seconds=0.3", "--appetite=10", "--decoder=tf")
    done = tenfold("bench", *flags, "--format=json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["decoder"] == "tf"
    assert found["batch_size"] == 64
    assert 0 < found["decode_share"] <= 1
    # A third of a second on a busy machine does not say which of the two is faster.
    assert found["decoded"]["records_per_s"] > 0
    assert found["raw"]["records_per_s"] > 0
    assert found["accelerators_fed"] == found["decoded"]["records_per_s"] / 10
    raw = found["raw"]
    assert raw["megabytes_per_s"] == pytest.approx(
        raw["records_per_s"] * found["mean_record_bytes"] / 1e6
    )


@pytest.mark.parametrize(
    ("busy", "raw", "decoded", "limit"),
    [
        (0.9, 3000, 900, "decoding"),
        (0.9, 1000, 900, "decoding"),
        (0.3, 1000, 900, "reading"),
        # a few huge images keep one thread busy while the other waits
        (0.5, 3000, 9, "parsing and decoding"),
    ],
)
def test_limit_is_the_slowest_stage(busy: float, raw: float, decoded: float, limit: str) -> None:
    rates = (SimpleNamespace(records_per_s=rate) for rate in (raw, decoded))
    found: Any = SimpleNamespace(decode_share=busy, raw=next(rates), decoded=next(rates))
    assert limit_of(found) == limit


def test_wrong_flags_are_refused(tenfold: Any, digit_shards: Path) -> None:
    assert "--shards is missing" in tenfold("bench").err
    done = tenfold("bench", f"--shards={digit_shards}", "--num_workers=5")
    assert (done.status, done.out) == (2, "")
    assert "5 workers cannot share 4 lanes" in done.err
