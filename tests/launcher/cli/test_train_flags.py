"""Values of the trainer's flags."""

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.cli.train_flags import parse_interval


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, (0, 0.0)),
        ("500", (500, 0.0)),
        ("500steps", (500, 0.0)),
        ("90s", (0, 90.0)),
        ("1.5min", (0, 90.0)),
        ("2h", (0, 7200.0)),
    ],
)
def test_checkpoint_intervals_are_parsed(text, value):
    assert parse_interval(text) == value


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "5 parsecs", "s", "0s"])
def test_wrong_checkpoint_intervals_are_refused(text):
    with pytest.raises(UserError, match="checkpoint_every"):
        parse_interval(text)
