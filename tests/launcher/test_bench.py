"""`tenfold bench` on real shards."""

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.timeout(120)
def test_bench_says_what_it_would_feed(tenfold: Any, digit_shards: Path) -> None:
    flags = (f"--shards={digit_shards}", "--seconds=0.3", "--appetite=10", "--decoder=tf")
    done = tenfold("bench", *flags, "--format=json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["decoder"] == "tf"
    assert found["batch_size"] == 64
    assert 0 < found["decode_share"] <= 1
    assert 0 < found["decoded"]["records_per_s"] < found["raw"]["records_per_s"]
    assert found["accelerators_fed"] == found["decoded"]["records_per_s"] / 10
    raw = found["raw"]
    assert raw["megabytes_per_s"] == pytest.approx(
        raw["records_per_s"] * found["mean_record_bytes"] / 1e6
    )


def test_mistakes(tenfold: Any, digit_shards: Path) -> None:
    assert "--shards is missing" in tenfold("bench").err
    done = tenfold("bench", f"--shards={digit_shards}", "--global_batch_size=63")
    assert (done.status, done.out) == (2, "")
    assert "take 60 or 64" in done.err
