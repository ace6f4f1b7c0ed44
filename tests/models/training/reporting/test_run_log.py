from pathlib import Path

from tenfold.models.metrics_line import (
    BottleneckLine,
    EpochMetrics,
    ReceiptLine,
    StepMetrics,
    decode_metrics,
    encode_metrics,
    read_metrics_lines,
)
from tenfold.models.output_files import METRICS_FILE
from tenfold.models.training.reporting.run_log import drop_lines_after

LINES = [StepMetrics(0, step, 2.0 / step, {"accuracy": 0.5}, 100.0, 0.25) for step in (1, 2, 3)]
RECEIPT = ReceiptLine(9, 10, 1, True, "0f", "0f", ("train-0 record 3",))


def write(path: Path, extra: str = "") -> Path:
    file = path / METRICS_FILE
    file.write_text("".join(map(encode_metrics, LINES)) + extra)
    return file


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    file = write(tmp_path)
    drop_lines_after(file, 2)
    assert read_metrics_lines(file.read_bytes()) == (LINES[:2], 0)


def test_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    file = write(tmp_path, '{"step": 3, "lo')
    drop_lines_after(file, 3)
    assert read_metrics_lines(file.read_bytes()) == (LINES, 0)


def test_damaged_line_is_dropped(tmp_path: Path) -> None:
    file = write(tmp_path, '{"kind": "step", "step": "x"}\n')
    assert read_metrics_lines(file.read_bytes()) == (LINES, 1)
    drop_lines_after(file, 3)
    assert read_metrics_lines(file.read_bytes()) == (LINES, 0)


def test_missing_file_is_no_error(tmp_path: Path) -> None:
    drop_lines_after(tmp_path / METRICS_FILE, 5)
    assert not (tmp_path / METRICS_FILE).exists()


def test_epoch_line_survives_encoding() -> None:
    bottleneck = BottleneckLine("input", "buy a disk", (0.5, 0.25), (0.5, 1.0), 0.125)
    line = EpochMetrics(1, 30, 0.5, {"accuracy": 1.0}, 9.5, 0.25, RECEIPT, 3.5, None, bottleneck)
    assert decode_metrics(encode_metrics(line)) == line
    assert "validation_receipt" not in encode_metrics(line)
