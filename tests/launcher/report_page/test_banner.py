"""The verdict on a run: from its values to the words on top of the page."""

import math
from dataclasses import replace
from typing import Any

import pytest

from tenfold.launcher.job.events import NotFinite
from tenfold.launcher.job.history.goodput import Goodput
from tenfold.launcher.job.job_result import Failure, Recovery
from tenfold.launcher.report_page.banner import Banner, RunValues, judge_run, limit_text
from tenfold.models.metrics_line import BottleneckLine, EpochMetrics, ReceiptLine
from tenfold.models.training.measuring.bottleneck import Shares, find_bottleneck

EXACT = ReceiptLine(9, 9, 0, exact=True)
LEARNING = (1.0, 0.5, 0.25, 0.12, 0.06)
RISING = (1.0, 0.3, 0.5, 0.7, 0.9)
FAILURE = Failure(1, 5.0, "training", 66, 1, "ValueError: no\nmore", "")


def epochs(
    losses: tuple[float, ...], *, bounds: str = "", validation: tuple[float, ...] = ()
) -> tuple[EpochMetrics, ...]:
    """Epochs; `bounds` has a letter for what limits each: i(nput), c(ompute)."""
    named = {"i": BottleneckLine("input", "reads"), "c": BottleneckLine("compute", "computes")}
    return tuple(
        EpochMetrics(
            index, 10 * (index + 1), loss, {"val_loss": validation[index]} if validation else {},
            100.0, 0.1, EXACT, bottleneck=named[bounds[index]] if bounds else None,
        )
        for index, loss in enumerate(losses)
    )  # fmt: skip


GOOD = RunValues("succeeded", epochs(LEARNING, bounds="icccc"), 5, 50)
NOT_FINITE = NotFinite(30, 2, "loss", "ignore", sentence="the loss of step 30 is not finite")

CASES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # change of GOOD -> level, title, words of the advice
    "good": ({}, "good", "Healthy, still learning", "a higher --epochs"),
    "restarted": (
        {"recoveries": (Recovery(FAILURE, preempted=False, num_workers=2),)},
        "good", "Healthy after 1 restart, still learning", "a higher --epochs",
    ),
    "overfitting": (
        {"epochs": epochs(LEARNING, validation=RISING)}, "warn", "Healthy, overfitting",
        "train for 2 epochs, or use more data",
    ),
    "flat": ({"epochs": epochs((1.0,) * 5)}, "good", "Healthy, no longer improving",
             "larger model"),
    "worse": ({"epochs": epochs(RISING)}, "warn", "Healthy, getting worse",
              "lower --learning_rate"),
    "one epoch": ({"epochs": GOOD.epochs[:1]}, "good", "Healthy", "more --epochs"),
    "failed": (
        {"state": "failed", "failure": FAILURE}, "bad", "Failed at step 66",
        "remove the cause of the first failure below",
    ),
    "failed by not finite": (
        {"state": "failed", "failure": FAILURE, "not_finite": NOT_FINITE}, "bad",
        "Failed at step 66: the loss is not finite", "give --clip_norm",
    ),
    "failed by the launcher": (
        {"state": "failed"}, "bad", "Failed at step 50", "remove the cause",
    ),
    "not finite, ignored": (
        {"not_finite": replace(NOT_FINITE, what="weights")}, "bad",
        "Not healthy: the weights are not finite", "lower --learning_rate",
    ),
    "not finite, skipped": (
        {"not_finite": replace(NOT_FINITE, action="skip"), "skipped": 3}, "warn",
        "Succeeded, with 3 skipped steps, still learning", "look at the records",
    ),
    "not finite, stopped": (
        {"not_finite": replace(NOT_FINITE, kept_step=20)}, "warn",
        "Stopped: the loss is not finite, still learning", "lower --learning_rate",
    ),
    "not finite by its losses alone": (
        {"epochs": epochs((1.0, math.nan, math.inf))}, "bad",
        "Not healthy: the loss is not finite", "lower --learning_rate",
    ),
    "records lost": (
        {"epochs": (replace(GOOD.epochs[0], receipt=ReceiptLine(8, 9, 0, exact=False)),)}, "bad",
        "Not healthy: records lost or repeated", "run 'tenfold verify'",
    ),
    "cancelled": (
        {"state": "cancelled"}, "warn", "Cancelled at step 50, still learning", "the same command",
    ),
    "running": ({"state": "running"}, "busy", "Running, still learning",
                "nothing needs attention"),
    "killed": (
        {"state": "ended without a result"}, "bad", "Ended without a result at step 50",
        "run the same command again",
    ),
    "a program": (
        {"epochs": (), "num_epochs": None, "step": None}, "good", "Succeeded", "",
    ),
    "nothing yet": (
        {"state": "running", "epochs": (), "step": None}, "busy", "Running", "nothing needs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_banner_of_run(case: str) -> None:
    change, level, title, advice = CASES[case]
    banner = judge_run(replace(GOOD, **change))
    assert (banner.level, banner.title) == (level, title)
    facts = dict(banner.facts)
    assert advice in facts.get("Next", "")
    assert all(facts.values())


def test_facts_of_a_good_run() -> None:
    assert judge_run(GOOD) == Banner(
        "good",
        "Healthy, still learning",
        (
            ("Health", "5 of 5 epochs done; every record read exactly once"),
            ("Limited by", "compute-bound: computes"),
            ("Learning", "still learning: loss fell from 0.12 to 0.06 in the last epoch"),
            ("Next", "train on: run the same command with a higher --epochs"),
        ),
        "Healthy, still learning; limited by computing; train on: run the same command with a "
        "higher --epochs.",
    )


@pytest.mark.parametrize(
    ("parts", "slow", "words"),
    [
        (
            {"steps": 70.0, "restart": 20.0, "lost": 10.0},
            1,
            "restarts and the work lost in them, 30%",
        ),
        ({"steps": 90.0, "restart": 10.0}, 1, "worker 1, which is slower than the others"),
        ({"steps": 90.0, "restart": 10.0}, None, "computing"),
    ],
)
def test_sentence_names_what_limits_the_run(parts: Any, slow: int | None, words: str) -> None:
    goodput = Goodput(100.0, parts, 0.9, (0.1, 0.2), slow)
    assert f"; limited by {words}" in judge_run(replace(GOOD, goodput=goodput)).sentence


def test_failure_names_the_worker_and_why_it_was_not_restarted() -> None:
    facts = dict(judge_run(replace(GOOD, state="failed", failure=FAILURE, reason="0 left")).facts)
    assert facts["Health"] == "worker 1 failed: ValueError: no; not restarted: 0 left"
    long = replace(FAILURE, error="word " * 200)
    health = dict(judge_run(replace(GOOD, state="failed", failure=long)).facts)["Health"]
    assert len(health) < 300
    assert health.endswith("word …")


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ("", ""),
        ("i", "input-bound: reads"),  # the first epoch counts only if it is the only one
        ("iic", "compute-bound: computes"),
        ("iiicc", "compute-bound: computes"),
        ("ciicc", "compute-bound: computes"),
        ("ciiic", "input-bound: reads"),
    ],
)
def test_limit_is_the_most_frequent_verdict(bounds: str, text: str) -> None:
    assert limit_text(epochs((1.0,) * max(1, len(bounds)), bounds=bounds)) == text


def test_limit_has_the_words_of_the_terminal() -> None:
    found = find_bottleneck(Shares((0.9, 0.8), (0.1, 0.1), 0.05), decoder=None)
    line = BottleneckLine(found.bound, found.advice)
    epoch = replace(GOOD.epochs[0], bottleneck=line)
    assert limit_text([epoch]) == found.sentence()
