"""The failure of a user's model function, as its author sees it."""

import json
from pathlib import Path
from typing import Any

import pytest

MODEL = """
import data


def build(spec):
    return layer_of(data.LAYERS)


def layer_of(layers):
    return layers["no such layer"]
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_traceback_of_a_model_function_begins_in_user_code(
    tenfold: Any, digit_shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "data.py").write_text("LAYERS = {}\n")
    (tmp_path / "net.py").write_text(MODEL)
    done = tenfold(
        "launch",
        f"--shards={digit_shards}",
        "--num_workers=2",
        "--model=net.py:build",
        "--run_dir=run",
        cwd=tmp_path,
    )
    assert done.status == 1
    assert "KeyError: 'no such layer'" in done.out
    assert not (tmp_path / "run" / "model.keras").exists()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["state"] == "failed"
    frames = [line for line in result["first_failure"]["traceback"].splitlines() if "File" in line]
    assert len(frames) == 2, "only the frames of the user's code are shown"
    assert all(str(tmp_path / "net.py") in frame for frame in frames)
