"""Predictions: every record once, whoever predicts it; files are whole and never mixed up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tenfold.data import read_manifest
from tenfold.data.errors import UserError
from tenfold.data.format.example import decode_example
from tenfold.data.format.tfrecord import read_records
from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.inference.inference_config import PREDICT, TFRECORD, InferenceConfig
from tenfold.models.inference.load_model import read_model_file
from tenfold.models.inference.predictor import predict

MakeConfig = Callable[..., InferenceConfig]
KEEP = {"label": "label", "name": "name", "x": "x"}


def run(config: InferenceConfig, reporter: Any, *, workers: int = 1) -> None:
    for index in range(workers):
        predict(
            config,
            read_manifest(config.shards),
            read_model_file(config.model, lambda _: None),
            place=WorkerPlace(index, workers),
            reporter=reporter,
        )


def stored_rows(shards: str) -> list[tuple[str, int, Any]]:
    """Return (shard, index, row) of all records of the shards."""
    rows = []
    for path in sorted(Path(shards).glob("*.tfrecord")):
        with open(path, "rb") as file:
            for index, (_, payload) in enumerate(read_records(file, path.stat().st_size)):
                rows.append((path.name, index, decode_example(payload)))
    return rows


def test_every_record_is_predicted_once_by_any_number_of_workers(
    make_config: MakeConfig, save_model: Any, reporter: Any, tmp_path: Path
) -> None:
    model = save_model()
    for workers in (1, 3):
        output = tmp_path / f"predictions-{workers}"
        config = make_config(PREDICT, output=str(output), keep=KEEP)
        run(config, reporter, workers=workers)
        rows = pq.read_table(output).to_pylist()
        stored = stored_rows(config.shards)
        assert len(rows) == len(stored) == 103
        for row, (shard, index, features) in zip(rows, stored, strict=True):
            assert (row["shard"], row["index"]) == (shard, index)
            assert (row["name"], row["label"]) == (features["name"][1][0], features["label"][1][0])
            np.testing.assert_array_equal(row["x"], features["x"][1])
        x = {"x": np.array([row["x"] for row in rows], np.float32), "name": np.array(["a"] * 103)}
        expected = model(x)
        np.testing.assert_allclose([row["prediction"] for row in rows], expected, rtol=1e-5)
    assert {step[1] for step in reporter.steps[:10]} == {12}


def test_files_that_exist_are_kept_and_the_rest_is_predicted(
    make_config: MakeConfig, save_model: Any, reporter: Any, tmp_path: Path
) -> None:
    save_model()
    output = tmp_path / "predictions"
    config = make_config(PREDICT, output=str(output))
    run(config, reporter)
    names = sorted(path.name for path in output.glob("*.parquet"))
    before = pq.read_table(output)
    (output / names[1]).unlink()
    (output / names[3]).unlink()
    (output / "_predictions.json").unlink()
    kept = (output / names[0]).stat().st_mtime_ns
    run(config, reporter, workers=2)
    after = pq.read_table(output)
    assert after.drop(["prediction"]).equals(before.drop(["prediction"]))
    found, expected = (table["prediction"].to_pylist() for table in (after, before))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (output / names[0]).stat().st_mtime_ns == kept
    assert (output / "_predictions.json").exists()


def test_failure_publishes_no_part_of_a_file(
    make_config: MakeConfig, save_model: Any, tmp_path: Path
) -> None:
    save_model()

    class Failing:
        def enter(self, phase: str) -> None: ...

        def step(self, step: int, total_steps: int, records: int) -> None:
            if records > 30:  # in the second shard
                raise RuntimeError("stop here")

    output = tmp_path / "predictions"
    with pytest.raises(RuntimeError, match="stop here"):
        run(make_config(PREDICT, output=str(output), global_batch_size=8), Failing())
    assert [path.name for path in sorted(output.iterdir())] == [
        "_begun.json",
        "train-00000-of-00006.parquet",
    ]


def test_predictions_of_another_job_are_refused(
    make_config: MakeConfig, save_model: Any, reporter: Any, tmp_path: Path
) -> None:
    save_model()
    config = make_config(PREDICT, output=str(tmp_path / "predictions"))
    run(config, reporter)
    with pytest.raises(UserError, match="holds predictions of another model, split or columns"):
        run(replace(config, keep={"label": "label"}), reporter)


def test_several_outputs_have_columns_of_their_names(
    make_config: MakeConfig, save_model: Any, reporter: Any, tmp_path: Path
) -> None:
    save_model(outputs=2)
    config = make_config(
        PREDICT, output=str(tmp_path / "out"), output_format=TFRECORD, keep={"label": "truth"}
    )
    run(config, reporter)
    rows = stored_rows(config.output)
    assert len(rows) == 103
    assert {name: (kind, len(values)) for name, (kind, values) in rows[0][2].items()} == {
        "shard": ("bytes", 1), "index": ("int64", 1), "truth": ("int64", 1),
        "classes": ("float", 4), "score": ("float", 1),
    }  # fmt: skip
    with pytest.raises(UserError, match="an output of the model has this name"):
        run(replace(config, keep={"label": "score"}), reporter)
