"""plan --plot: the plot shows the figures of the plan."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NO_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None
from tenfold.launcher.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def texts_of(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))


def test_plot_shows_the_figures_of_the_plan(tenfold: Any, tmp_path: Path) -> None:
    svg = tmp_path / "plan.svg"
    flags = ["--dataset_size=10GB", "--num_workers=4", "--worker_counts=1,2,4,8"]
    done = tenfold("plan", *flags, f"--plot={svg}")
    assert done.status == 0, done.err
    texts = texts_of(svg)
    assert "10 GB as 48 shards of 208 MB: 4 workers, 12 each" in texts
    assert {"worker 0: lanes 0–5", "worker 3: lanes 18–23", "mean shard: 208 MB", "10 MB"} <= {
        text.strip() for text in texts
    }
    assert [text for text in texts if text.isdecimal() and int(text) > 8]  # the shards' numbers
    assert "6 shards, 1.25 GB for each of 8 workers" in texts
    again = tmp_path / "again.svg"
    tenfold("plan", *flags, f"--plot={again}")
    assert again.read_bytes() == svg.read_bytes()


def test_plot_of_a_huge_layout_stays_small(tenfold: Any, tmp_path: Path) -> None:
    svg = tmp_path / "plan.svg"
    flags = ["--dataset_size=900TB", "--num_examples=100000000", "--num_workers=48"]
    assert tenfold("plan", *flags, f"--plot={svg}").status == 0
    (caption,) = [text for text in texts_of(svg) if "not shown" in text]
    assert "32 more workers" in caption
    assert len(texts_of(svg)) < 200


def test_png_plot_is_a_png(tenfold: Any, tmp_path: Path) -> None:
    png = tmp_path / "plan.png"
    assert tenfold("plan", "--dataset_size=1GB", f"--plot={png}").status == 0
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("path", "words"),
    [("plan.gif", "must end in .svg or .png"), ("nowhere/plan.svg", "there is no folder")],
)
def test_bad_plot_path_is_refused_first(
    tenfold: Any, tmp_path: Path, path: str, words: str
) -> None:
    done = tenfold("plan", "--dataset_size=1GB", f"--plot={path}", cwd=tmp_path)
    assert done.status == 2
    assert words in done.err
    assert list(tmp_path.iterdir()) == []


def test_missing_matplotlib_names_the_extra(tmp_path: Path) -> None:
    flags = ["plan", "--dataset_size=1GB", f"--plot={tmp_path / 'plan.svg'}"]
    command = [sys.executable, "-c", NO_MATPLOTLIB, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'tenfold[plot]'" in done.stderr
