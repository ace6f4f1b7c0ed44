"""Hints for unknown names."""

from tenfold.data.errors import did_you_mean

KNOWN = ("plan", "write", "verify")


def test_did_you_mean_names_the_nearest() -> None:
    assert did_you_mean("plna", KNOWN) == "did you mean 'plan'?"


def test_did_you_mean_lists_all_without_a_near_name() -> None:
    assert did_you_mean("xyz", KNOWN) == "there are: plan, write, verify"


def test_did_you_mean_prefers_the_callers_hint() -> None:
    assert did_you_mean("xyz", KNOWN, otherwise="see --help") == "see --help"
