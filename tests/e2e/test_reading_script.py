"""The script of docs/reading.md prints what the page shows, and the same losses on two workers."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reading.md"
LINE = re.compile(r"epoch (\d): loss ([\d.]+); (.*)")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_script_has_equal_losses_on_two_workers(
    tmp_path: Path, digit_shards: Path, tenfold: Callable[..., Any]
) -> None:
    page = PAGE.read_text("utf-8")
    script = tmp_path / "script.py"
    script.write_text(re.search(r"```python\n(# script.py\n.*?)```", page, re.S)[1])  # type: ignore[index]
    assert "$ python script.py shards\n" in page
    assert "$ tenfold launch --num_workers=2 --run_dir=two -- python script.py shards\n" in page
    alone = subprocess.run(
        [sys.executable, script, digit_shards], capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    together = tenfold(
        "launch",
        "--num_workers=2",
        f"--run_dir={tmp_path / 'two'}",
        "--",
        sys.executable,
        str(script),
        str(digit_shards),
    )
    assert together.status == 0, together.err
    one = LINE.findall(alone.stdout)
    assert [epoch for epoch, _, _ in one] == ["0", "1"]
    # The page shows both lines of the process, and the last one of the workers.
    shown = [(epoch, receipt) for epoch, _, receipt in LINE.findall(page)]
    assert shown == [(epoch, receipt) for epoch, _, receipt in (*one, one[1])]
    assert re.search(r"^\[worker [01]\] epoch 1: loss ", together.out + together.err, re.M)
    assert "succeeded in " in together.out + together.err
    for worker in range(2):
        log = (tmp_path / "two" / "logs" / f"worker-{worker}.log").read_text("utf-8")
        for expected, (epoch, loss, receipt) in zip(one, LINE.findall(log), strict=True):
            assert (epoch, receipt) == (expected[0], expected[2])
            assert float(loss) == pytest.approx(float(expected[1]), rel=1e-3)
            assert receipt.startswith("1,600 of 1,617 records, each read once, 17 left over")
