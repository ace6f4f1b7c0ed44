"""The bottleneck of a run (input, communication or compute) and advice against it. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tenfold.data.reading.decoding.decoders import BUSY
from tenfold.models.metrics_line import BottleneckLine

# A worker whose share of time waiting for input is this far above the median is named.
_UNEVEN_SHARE: Final = 0.15


@dataclass(frozen=True)
class Shares:
    """Shares (0 to 1) of the time of some training steps.

    Attributes:
      wait: per worker, the share of time that its steps waited for input.
      decode: per worker, the share of time that its decoding threads were busy.
      communication: the time of one all-reduce of the gradients, measured alone, as a share of
        the slowest worker's step.
    """

    wait: tuple[float, ...]
    decode: tuple[float, ...]
    communication: float


@dataclass(frozen=True)
class Bottleneck:
    """The resource that limits a run: `bound` is ``input``, ``communication`` or ``compute``."""

    bound: str
    advice: str
    shares: Shares

    def sentence(self) -> str:
        """Return the verdict in the words that the report uses too."""
        return BottleneckLine(self.bound, self.advice).sentence()

    def to_json(self) -> dict[str, Any]:
        """Return the `bottleneck` object of an epoch's line in metrics.jsonl."""
        return {"bound": self.bound, "advice": self.advice, **asdict(self.shares)}


def find_bottleneck(shares: Shares, *, decoder: str | None) -> Bottleneck:
    """Return the bottleneck: whichever of compute, input and communication took most time.

    The share of input is that of the worker that waits longest, because the other workers wait
    for it.

    Args:
      shares: the shares of the steps' time.
      decoder: the name of the decoder that ran, or None if there are no images.
    """
    wait = max(shares.wait)
    compute = max(0.0, 1.0 - wait - shares.communication)
    by_share = {"compute": compute, "input": wait, "communication": shares.communication}
    bound = max(by_share, key=lambda name: by_share[name])
    advice = {"compute": _compute, "input": _input, "communication": _communication}[bound]
    return Bottleneck(bound, advice(shares, decoder), shares)


def _compute(shares: Shares, decoder: str | None) -> str:
    del decoder
    return (
        f"steps wait for input {max(shares.wait):.0%} of the time, summing gradients takes "
        f"{shares.communication:.0%}: use more workers or faster ones"
    )


def _communication(shares: Shares, decoder: str | None) -> str:
    del decoder
    return (
        f"summing gradients over the workers takes {shares.communication:.0%} of a step: use a "
        "larger --global_batch_size or a faster network"
    )


def _input(shares: Shares, decoder: str | None) -> str:
    slowest = max(range(len(shares.wait)), key=lambda worker: shares.wait[worker])
    waited, busy = shares.wait[slowest], shares.decode[slowest]
    usual = statistics.median(shares.wait)
    if len(shares.wait) > 1 and waited - usual > _UNEVEN_SHARE:
        return (
            f"worker {slowest} waits for input {waited:.0%} of the time, the others {usual:.0%}: "
            "check its disk, its network and the other programs on its host"
        )
    if busy < BUSY:
        return (
            f"steps wait for input {waited:.0%} of the time, decoding is busy {busy:.0%}: reading "
            "is the limit; put the shards on a nearer or faster disk, or in memory"
        )
    return f"steps wait for input {waited:.0%} of the time, {_faster_decoding(decoder)}"


def _faster_decoding(decoder: str | None) -> str:
    if decoder is None:
        return "parsing is the limit: use more cores per worker"
    if decoder == "tf":
        return (
            "decoding is the limit: pip install 'tenfold[fast]', use more cores per worker, or "
            "resize the images when writing the shards"
        )
    return (
        "decoding is the limit: use more cores per worker, resize the images when writing the "
        "shards, or use --decoder=turbo_scaled if they are far larger than --image_size"
    )


def shares_of(rows: Sequence[tuple[float, ...]], *, communication_s: float) -> Shares:
    """Return the shares of all workers.

    Args:
      rows: (wait share, decode share, seconds per step) of each worker, as
        `timing.Stopwatch.read` returns them.
      communication_s: seconds of one all-reduce of the gradients.
    """
    step_s = max(step_s for _, _, step_s in rows)
    return Shares(
        wait=tuple(row[0] for row in rows),
        decode=tuple(row[1] for row in rows),
        communication=min(1.0, communication_s / max(step_s, 1e-9)),
    )
