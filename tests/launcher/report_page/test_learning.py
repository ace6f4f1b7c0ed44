"""Whether a run still learns, from the losses of its epochs."""

import math

import pytest

from tenfold.launcher.report_page.learning import judge_learning, trend
from tenfold.models.metrics_line import EpochMetrics, ReceiptLine


def epochs(losses: list[float], validation: list[float] | None = None) -> list[EpochMetrics]:
    """Epochs with these losses."""
    receipt = ReceiptLine(9, 9, 0, exact=True)
    return [
        EpochMetrics(
            index, 10 * (index + 1), loss, {"val_loss": validation[index]} if validation else {},
            100.0, 0.1, receipt,
        )
        for index, loss in enumerate(losses)
    ]  # fmt: skip


FALLING = [1.0, 0.5, 0.25, 0.12, 0.06, 0.03]

CASES: list[tuple[list[float], list[float] | None, str, str]] = [
    ([], None, "unknown", "no epoch with a loss yet"),
    ([1.0], None, "unknown", "1 epoch is too few to tell"),
    ([1.0, 0.5], None, "unknown", "2 epochs are too few to tell"),
    ([math.nan] * 9, None, "unknown", "no epoch"),
    (FALLING, None, "learning", "still learning: loss fell from 0.06 to 0.03 in the last epoch"),
    (
        [*FALLING, 0.02, 0.01], None, "learning",
        "still learning: loss fell from 0.03 to 0.01 in the last 2 epochs",
    ),
    # the validation loss decides where there is one
    (FALLING, [1.0, 0.6, 0.4, 0.4, 0.41, 0.4], "flat", "the lowest val_loss is 0.4 (epoch 3)"),
    (
        FALLING, [1.0, 0.6, 0.4, 0.5, 0.6, 0.8], "overfitting",
        "overfitting since epoch 3: val_loss rose from 0.4 (epoch 3) to 0.8, while the training "
        "loss fell to 0.03",
    ),
    # one epoch above the best is no trend, nor is a rise within the noise
    (FALLING, [1.0, 0.8, 0.6, 0.5, 0.4, 0.6], "flat", "val_loss is 0.4 (epoch 5)"),
    (FALLING, [1.0, 0.6, 0.4, 0.41, 0.41, 0.41], "flat", "no longer improving"),
    ([1.0, 0.5, 0.8, 0.9, 1.2], None, "worse",
     "getting worse: loss rose from 0.5 (epoch 2) to 1.2"),
    ([1.0, 0.5, 0.8, 0.9], [1.0, 0.5, 0.8, 0.9], "worse", "getting worse: val_loss rose"),
    ([0.0, 0.0, 0.0, 0.0], None, "flat", "the lowest loss is 0 (epoch 1)"),
    ([-1.0, -2.0, -3.0, -4.0], None, "learning", "loss fell from -3 to -4"),
]  # fmt: skip


@pytest.mark.parametrize(("losses", "validation", "kind", "words"), CASES)
def test_learning_of_losses(
    losses: list[float], validation: list[float] | None, kind: str, words: str
) -> None:
    learning = judge_learning(epochs(losses, validation))
    assert learning.kind == kind
    assert words in learning.text


def test_noise_is_no_trend() -> None:
    """Forty epochs that jump between 0.02 and 0.3; one is lower by chance, the last is high."""
    noisy = [0.4, 0.15, *(0.02 + 0.28 * (index * 7 % 11) / 11 for index in range(38))]
    noisy[20], noisy[-1] = 0.009, 0.345
    assert judge_learning(epochs(noisy, noisy)).kind == "flat"
    rising = [value + 0.02 * max(0, index - 15) for index, value in enumerate(noisy)]
    falling = [1 / (index + 1) for index in range(40)]
    assert judge_learning(epochs(falling, rising)).kind == "overfitting"
    assert judge_learning(epochs(noisy, falling)).kind == "learning"


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], 0), ([1], 0), ([1, 2, 3], 1), ([3, 2, 1], -1), ([2, 2, 2], 0), ([1, 3, 2, 4], 4 / 6),
     (list(range(1000)), 1)],
)  # fmt: skip
def test_trend_of_values(values: list[float], expected: float) -> None:
    assert trend(values) == pytest.approx(expected)


def test_best_epoch_is_that_of_the_lowest_loss() -> None:
    assert judge_learning(epochs(FALLING, [1.0, 0.6, 0.4, 0.5, 0.6, 0.8])).best_epoch == 2
