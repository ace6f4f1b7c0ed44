"""Which figure of a run tells how good it is, and its best value."""

import math

import pytest

from tenfold.launcher.display.progress.best_value import best_value
from tenfold.models.run_rules.figures import direction


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 1), ("val_sparse_top_k_categorical_accuracy", 1), ("mean_io_u", 1),
        ("AUC", 1), ("val_loss", -1), ("root_mean_squared_error", -1), ("mae", -1),
        ("learning_rate", 0), ("accuracy_loss", 0), ("", 0),
    ],
)  # fmt: skip
def test_direction_of_figure(name: str, expected: int) -> None:
    assert direction(name) == expected


@pytest.mark.parametrize(
    ("epochs", "text"),
    [
        ([], None),
        ([{"speed": 3.0}], None),  # nothing says whether more of it is better
        ([{"loss": 0.5}, {"loss": 0.25}, {"loss": 0.3}], "best loss 0.25 (epoch 2)"),
        # a validation metric comes before the validation loss, before a metric of training
        ([{"loss": 1, "accuracy": 0.9, "val_loss": 2, "val_accuracy": 0.5},
          {"loss": 0, "accuracy": 1.0, "val_loss": 1, "val_accuracy": 0.4}],
         "best val_accuracy 0.5 (epoch 1)"),
        ([{"loss": 1, "accuracy": 0.9, "val_loss": 2}, {"loss": 0, "accuracy": 1, "val_loss": 1}],
         "best val_loss 1 (epoch 2)"),
        ([{"accuracy": 0.5}, {"accuracy": 0.5}], "best accuracy 0.5 (epoch 1)"),
        ([{"loss": math.nan}, {"loss": 2.0}, {"loss": -math.inf}], "best loss 2 (epoch 2)"),
        ([{"loss": math.nan}], None),
    ],
)  # fmt: skip
def test_best_value_of_epochs(epochs: list[dict[str, float]], text: str | None) -> None:
    best = best_value(enumerate(epochs))
    assert (best.text() if best else None) == text
