"""A run as a JSON object, for programs: what the page says first. Pure."""

import math
from dataclasses import asdict
from typing import Any

from tenfold.launcher.report_page.banner import Banner
from tenfold.launcher.report_page.run_files import RunFiles
from tenfold.models.metrics_line import MetricsLine


def run_document(run: RunFiles, verdict: Banner) -> dict[str, Any]:
    """Return the state, the verdict, the goodput, the epochs and the flags of a run.

    Args:
      run: the contents of the run directory.
      verdict: the verdict on it.
    """
    result = run.result
    lines: list[MetricsLine] = [*run.steps, *run.epochs]
    document = {
        "run_dir": run.where,
        "state": run.state,
        "verdict": {"level": verdict.level, "title": verdict.title, **_facts(verdict)},
        "seconds": result.seconds if result else None,
        "restarts": result.restarts if result else None,
        "step": max((line.step for line in lines), default=None),
        "goodput": asdict(run.goodput) if run.goodput else None,
        "slow_worker": run.goodput.slow_sentence() if run.goodput else "",
        "epochs": [asdict(line) for line in run.epochs],
        "first_failure": asdict(result.first_failure) if result and result.first_failure else None,
        "num_workers": run.spec.num_workers,
        "config": run.spec.train.to_json() if run.spec.train else None,
    }
    return {name: _finite(value) for name, value in document.items()}


def _finite(value: Any) -> Any:
    """Return a value with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _facts(verdict: Banner) -> dict[str, str]:
    return {name.lower().replace(" ", "_"): text for name, text in verdict.facts}
