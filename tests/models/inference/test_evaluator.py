"""Evaluation gives the figures of Keras itself, over each record once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tenfold.data import read_manifest
from tenfold.data.errors import UserError
from tenfold.data.reading.read_options import Position, WorkerPlace
from tenfold.data.storage.open_folder import open_folder
from tenfold.models.inference.evaluator import Evaluator
from tenfold.models.inference.follow import EvaluatedCheckpoint, follow
from tenfold.models.inference.inference_config import InferenceConfig
from tenfold.models.inference.load_model import read_model_file
from tenfold.models.training.checkpoints.checkpoint import Checkpoint, RunState, save_checkpoint

MakeConfig = Callable[..., InferenceConfig]


def make_evaluator(config: InferenceConfig, reporter: Any) -> Evaluator:
    return Evaluator(
        config,
        read_manifest(config.shards),
        read_model_file(config.model, lambda _: None),
        strategy=tf.distribute.get_strategy(),
        place=WorkerPlace(),
        reporter=reporter,
    )


def keras_figures(model: Any, config: InferenceConfig) -> dict[str, float]:
    with np.load(Path(config.shards).parent / "rows.npz") as rows:
        x = {"x": tf.constant(rows["x"]), "name": tf.constant(rows["name"])}
        return dict(model.evaluate(x, rows["label"], verbose=0, return_dict=True))


@pytest.mark.parametrize("batch", [16, 103, 200])
def test_figures_are_those_of_keras(
    make_config: MakeConfig, save_model: Any, reporter: Any, batch: int
) -> None:
    model = save_model()
    config = make_config(global_batch_size=batch)
    found = make_evaluator(config, reporter).evaluate()
    assert found.receipt.exact
    assert found.receipt.records == 103
    expected = keras_figures(model, config)
    assert found.loss == pytest.approx(expected["loss"], rel=1e-5)
    assert found.metrics == pytest.approx({"accuracy": expected["accuracy"]})
    assert reporter.steps[-1][0] == reporter.steps[-1][1]


def test_given_metrics_replace_those_of_the_model(
    make_config: MakeConfig, save_model: Any, reporter: Any
) -> None:
    model = save_model(compiled=False)
    with pytest.raises(UserError, match="is not compiled, so there is nothing to measure"):
        make_evaluator(make_config(), reporter)
    with pytest.raises(UserError, match="has no loss: give --loss beside --metric"):
        make_evaluator(make_config(metrics=("accuracy",)), reporter)
    names = ("SparseTopKCategoricalAccuracy",)
    config = make_config(metrics=names, loss="sparse_categorical_crossentropy")
    found = make_evaluator(config, reporter).evaluate()
    model.compile(loss="sparse_categorical_crossentropy", metrics=list(names))
    expected = keras_figures(model, config)
    assert {"loss": found.loss, **found.metrics} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("accurracy",)}, "--metric=accurracy: Keras knows no metric of this name"),
        ({"loss": "hinges"}, "--loss=hinges: Keras knows no loss of this name"),
        ({"model": "/nowhere/model.keras"}, "model '/nowhere/model.keras' does not exist"),
        ({"model": "/nowhere"}, "neither a .keras file nor the run directory of a training"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    make_config: MakeConfig, save_model: Any, reporter: Any, changes: Any, message: str
) -> None:
    save_model()
    with pytest.raises(UserError) as caught:
        make_evaluator(make_config(**changes), reporter)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_no_model_is_refused(
    make_config: MakeConfig, reporter: Any, tmp_path: Path
) -> None:
    (tmp_path / "model.keras").write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot be loaded"):
        make_evaluator(make_config(), reporter)


def test_each_new_checkpoint_is_evaluated_until_the_training_ends(
    make_config: MakeConfig, save_model: Any, reporter: Any, tmp_path: Path
) -> None:
    model = save_model()
    evaluator = make_evaluator(make_config(), reporter)
    folder = open_folder(str(tmp_path / "checkpoints"))
    zeros = [np.zeros(value.shape, np.float32) for value in model.get_weights()]
    plans: Iterator[tuple[Position, Any]] = iter(
        [(Position(0, 5), model.get_weights()), (Position(1, 0), zeros)]
    )

    def has_ended() -> bool:
        """Let the training save its next checkpoint, whenever the chief looks."""
        plan = next(plans, None)
        if plan is None:
            return True
        position, values = plan
        state = RunState(position, seed=0, global_batch_size=16)
        save_checkpoint(folder, Checkpoint(state, tuple(values)), keep=2)
        return False

    told: list[EvaluatedCheckpoint] = []
    results = follow(evaluator, folder, is_chief=True, has_ended=has_ended, on_result=told.append)
    assert told == results
    assert [found.position for found in results] == [Position(0, 5), Position(1, 0)]
    expected = keras_figures(model, make_config())
    assert results[0].result.loss == pytest.approx(expected["loss"], rel=1e-5)
    assert results[1].result.loss == pytest.approx(np.log(4), rel=1e-5)
