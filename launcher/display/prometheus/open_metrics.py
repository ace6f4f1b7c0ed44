"""Text in the OpenMetrics format, which Prometheus' textfile collector reads too. Pure.

Format: https://prometheus.io/docs/specs/om/open_metrics_spec/. Only gauges without time stamps and
units are used, the part that the older text format of Prometheus shares.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True)
class Gauge:
    """One metric: `help` in a sentence without quotation marks, and (labels, value) of samples."""

    name: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]

    def __post_init__(self) -> None:
        assert _NAME.fullmatch(self.name), self.name
        assert '"' not in self.help, self.help
        for labels, _ in self.samples:
            assert all(_NAME.fullmatch(label) for label in labels), labels


def open_metrics_text(gauges: Iterable[Gauge], *, labels: Mapping[str, str]) -> str:
    """Return the text of a file of metrics.

    Args:
      gauges: the metrics, with names of their own; those without samples are left out.
      labels: further labels of every sample.
    """
    lines = []
    for gauge in gauges:
        if gauge.samples:
            lines.append(f"# TYPE {gauge.name} gauge")
            lines.append(f"# HELP {gauge.name} {gauge.help.translate(_ESCAPES)}")
        for own, value in gauge.samples:
            lines.append(f"{gauge.name}{_labels({**labels, **own})} {_number(value)}")
    return "\n".join([*lines, "# EOF"]) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))
