"""Flags that say what a model is fed, and what they become."""

from pathlib import Path

import pytest

from tenfold.data.errors import UserError
from tenfold.data.reading.feeding.feed_options import DEFAULT_FEED, LONGEST, FeedOptions
from tenfold.launcher.cli.feed_flags import define_feed_flags, feed_options, map_name
from tenfold.launcher.cli.flags import FlagValues
from tenfold.launcher.cli.inference_flags import config_from_flags, define_inference_flags
from tenfold.models.inference.inference_config import EVALUATE

PREP = "def prep(features): return features\n"


def parsed(*words: str) -> FlagValues:
    fv = FlagValues()
    define_feed_flags(fv)
    fv(["tenfold", *words])
    return fv


def test_flags_become_options() -> None:
    fv = parsed("--pad=history:50,tags:max", "--default=age:0", "--target=a,b", "--mask=mask")
    assert feed_options(fv) == FeedOptions(
        target=("a", "b"),
        pad={"history": 50, "tags": LONGEST},
        default={"age": "0"},
        masks=("mask",),
    )
    assert feed_options(parsed()) == DEFAULT_FEED


def test_misspelt_map_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prep.py").write_text(PREP)
    monkeypatch.chdir(tmp_path)
    assert map_name(parsed("--map=prep.py:prep")) == "prep.py:prep"
    with pytest.raises(
        UserError, match=r"map 'prep\.py:pre': prep\.py has no 'pre': did you mean"
    ):
        map_name(parsed("--map=prep.py:pre"))


def test_evaluation_keeps_the_options_of_the_training(
    digit_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map alone does not take the training's lengths and defaults away."""
    (tmp_path / "prep.py").write_text(PREP)
    (tmp_path / "model.keras").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for words, feed, function in (
        ((), None, None),
        (("--map=prep.py:prep",), None, "prep.py:prep"),
        (("--pad=history:5",), FeedOptions(pad={"history": 5}), None),
    ):
        fv = FlagValues()
        define_inference_flags(fv, split="train")
        fv(["tenfold", "--model=model.keras", f"--shards={digit_shards}", *words])
        config = config_from_flags(fv, EVALUATE)
        assert (config.feed, config.map) == (feed, function)
