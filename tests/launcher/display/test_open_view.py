"""The epochs of earlier launches, with which a resumed run goes on."""

from pathlib import Path

from tenfold.launcher.display.open_view import finished_epochs
from tenfold.launcher.display.progress.job_progress import track_job
from tenfold.launcher.job.events import Epoch
from tenfold.launcher.job.job_spec import JobSpec
from tenfold.models.metrics_line import (
    EpochMetrics,
    ReceiptLine,
    StepMetrics,
    encode_metrics,
)
from tenfold.models.train_config import TrainConfig


def test_resumed_run_knows_its_earlier_epochs(tmp_path: Path) -> None:
    train = TrainConfig("shards", str(tmp_path / "run"), epochs=4)
    spec = JobSpec(("python",), 2, str(tmp_path / "run"), train=train)
    assert list(finished_epochs(spec)) == []  # a new run directory does not exist yet
    (tmp_path / "run").mkdir()
    assert list(finished_epochs(spec)) == []
    receipt = ReceiptLine(9, 9, 0, exact=True)
    lines: list[StepMetrics | EpochMetrics] = [
        StepMetrics(0, 1, 2.0, {"accuracy": 0.1}, 5.0, 0.1),
        EpochMetrics(0, 1, 2.0, {"val_accuracy": 0.9}, 5.0, 0.1, receipt),
        EpochMetrics(1, 2, 1.0, {"val_accuracy": 0.8}, 5.0, 0.1, receipt),
    ]
    text = "".join(map(encode_metrics, lines)) + encode_metrics(lines[1])[:50]
    (tmp_path / "run" / "metrics.jsonl").write_text(text)
    epochs = list(finished_epochs(spec))
    assert epochs == [
        Epoch(0, 4, 2.0, {"val_accuracy": 0.9}),
        Epoch(1, 4, 1.0, {"val_accuracy": 0.8}),
    ]
    tracker = track_job(spec)
    for epoch in epochs:
        tracker.take_epoch(epoch)
    best = tracker.progress([], 0.0).best
    assert best
    assert best.text() == "best val_accuracy 0.9 (epoch 1)"
    program = JobSpec(("python",), 2, str(tmp_path / "run"))
    assert list(finished_epochs(program)) == []
