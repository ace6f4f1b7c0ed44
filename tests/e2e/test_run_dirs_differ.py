"""Workers whose run directories are different folders."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.reading.read_options import Position
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec, job_to_json
from tenfold.models.output_files import CHECKPOINTS_FOLDER
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.checkpoints.checkpoint import Checkpoint, RunState, save_checkpoint

WORKER = """
import os, sys
os.environ["TENFOLD_RUN_DIR"] = sys.argv[1 + int(os.environ["TENFOLD_WORKER_INDEX"])]
from tenfold.launcher.worker.trainer import main
main()
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_workers_with_different_run_dirs_fail(
    tenfold: Any, digit_shards: Path, tmp_path: Path
) -> None:
    config = TrainConfig(str(digit_shards), "", epochs=2)
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
        train = replace(config, run_dir=str(folder))
        spec = JobSpec(("unused",), 2, str(folder), train=train)
        (folder / "job.json").write_text(job_to_json(spec, ClusterSpec(("a:1", "b:1"))))
    state = RunState(Position(1, 5), config.seed, config.global_batch_size)
    save_checkpoint(
        open_folder(str(folders[0] / CHECKPOINTS_FOLDER)), Checkpoint(state, ()), keep=1
    )

    program = ["--", sys.executable, "-c", WORKER, *map(str, folders)]
    done = tenfold("launch", "--num_workers=2", f"--run_dir={tmp_path / 'run'}", *program)
    assert done.status == 1
    assert "other workers at another step: --run_dir=" in done.out
    assert "would resume at step 30" in done.out
