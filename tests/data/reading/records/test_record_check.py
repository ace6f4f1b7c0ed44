"""Records that do not hold what the manifest says are named before training reads them."""

from typing import Any

import numpy as np
import pytest

from tenfold.data.format.example import encode_example
from tenfold.data.format.manifest import Feature
from tenfold.data.reading.records.record_check import parse_problem

FEATURES = (
    Feature("age", "int64", (), optional=True),
    Feature("boxes", "float", (None, 4)),
    Feature("history", "int64", (None,)),
    Feature("label", "int64"),
)
BOXES = np.zeros((2, 4), np.float32)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"age": 3, "boxes": BOXES, "history": [1, 2], "label": 0}, ""),
        ({"boxes": BOXES[:0], "history": np.zeros(0, np.int64), "label": 0}, ""),
        (
            {"boxes": BOXES[:, :3], "history": [1], "label": 0},
            "feature 'boxes' has 6 float values, the manifest says a multiple of 4 float",
        ),
        (
            {"boxes": BOXES, "history": [1.5], "label": 0},
            "feature 'history' has 1 float values, the manifest says a multiple of 1 int64",
        ),
        (
            {"boxes": BOXES, "history": [1], "age": [1, 2], "label": 0},
            "feature 'age' has 2 int64 values, the manifest says 1 int64",
        ),
        (
            {"boxes": BOXES, "history": [1]},
            "feature 'label' has 0 int64 values, the manifest says 1 int64",
        ),
    ],
    ids=["whole", "empty lists", "no boxes", "kind", "two values", "missing"],
)
def test_values_are_compared_with_the_manifest(row: dict[str, Any], problem: str) -> None:
    found = parse_problem(encode_example(row), FEATURES)
    assert found == (problem and f"cannot be parsed: {problem}")
