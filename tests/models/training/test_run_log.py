import json
from pathlib import Path

from tenfold.models.training.run_log import METRICS_NAME, drop_lines_after

LINES = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 0.5}]


def write(path: Path, extra: str = "") -> Path:
    file = path / METRICS_NAME
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES) + extra)
    return file


def test_lines_after_the_checkpoint_go(tmp_path: Path) -> None:
    file = write(tmp_path)
    drop_lines_after(file, 2)
    assert [json.loads(line) for line in file.read_text().splitlines()] == LINES[:2]


def test_a_line_cut_by_a_kill_goes_too(tmp_path: Path) -> None:
    file = write(tmp_path, '{"step": 3, "lo')
    drop_lines_after(file, 3)
    assert [json.loads(line) for line in file.read_text().splitlines()] == LINES


def test_no_file_is_no_error(tmp_path: Path) -> None:
    drop_lines_after(tmp_path / METRICS_NAME, 5)
    assert not (tmp_path / METRICS_NAME).exists()
