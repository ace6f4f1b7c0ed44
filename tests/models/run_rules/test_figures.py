"""Which value of a figure is the best."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.models.run_rules.figures import BestFigure, observe, watched_figure


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("val_loss", -1),
        ("val_accuracy", 1),
        ("mean_io_u:max", 1),
        ("val_score:min", -1),
        ("accuracy:min", -1),  # what is given goes before what the name says
    ],
)
def test_sign_comes_from_name_or_suffix(text: str, sign: int) -> None:
    assert watched_figure(text, "monitor").sign == sign


@pytest.mark.parametrize("text", ["val_score", "val_loss:best", "", ":max"])
def test_unclear_figure_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(UserError, match=r"higher or lower is better: give --monitor=.*:max or"):
        watched_figure(text, "monitor")


@given(st.lists(st.floats(), min_size=1), st.sampled_from(["x:max", "x:min"]))
def test_best_is_the_first_best_finite_value(values: list[float], text: str) -> None:
    figure, best = watched_figure(text, "monitor"), BestFigure()
    for step, value in enumerate(values):
        best = observe(figure, best, value, step=step)
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        assert math.isnan(best.value)
        assert best.since == len(values)
        return
    assert best.value == (max(finite) if figure.sign > 0 else min(finite))
    assert best.step == values.index(best.value)
    assert best.since == len(values) - 1 - best.step
