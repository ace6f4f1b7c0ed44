"""What a run waits for: input, communication or computation, and what to do about it."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tenfold.data.reading.decoding.decoders import BUSY

# Workers are uneven when one waits this much longer than the median one, in shares of the time.
_UNEVEN: Final = 0.15


@dataclass(frozen=True)
class Shares:
    """Where the time of some training steps went, as shares of it.

    `wait` and `decode` have one entry a worker: the share of time that its steps waited for
    input, and the share that its decoding threads were at work. `communication` is what
    all-reducing the gradients takes when nothing else is done meanwhile.
    """

    wait: tuple[float, ...]
    decode: tuple[float, ...]
    communication: float


@dataclass(frozen=True)
class Bottleneck:
    """What limits a run: `bound` is ``input``, ``communication`` or ``compute``."""

    bound: str
    advice: str
    shares: Shares

    def sentence(self) -> str:
        """Returns ``input-bound: …`` with the advice."""
        return f"{self.bound}-bound: {self.advice}"

    def to_json(self) -> dict[str, Any]:
        """Returns the verdict as metrics.jsonl holds it."""
        return {"bound": self.bound, "advice": self.advice, **asdict(self.shares)}


def find_bottleneck(shares: Shares, *, decoder: str | None) -> Bottleneck:
    """Returns what took most of the time.

    `decoder` is the name of the decoder that ran, None where there are no images. The worker
    that waits longest for input counts: the others wait for it.
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
        f"steps wait {max(shares.wait):.0%} of the time for input, gradients take "
        f"{shares.communication:.0%}: more workers or faster ones would help"
    )


def _communication(shares: Shares, decoder: str | None) -> str:
    del decoder
    return (
        f"summing gradients over the workers takes {shares.communication:.0%} of a step: a larger "
        "--global_batch_size or a faster network would help"
    )


def _input(shares: Shares, decoder: str | None) -> str:
    slowest = max(range(len(shares.wait)), key=lambda worker: shares.wait[worker])
    waited, busy = shares.wait[slowest], shares.decode[slowest]
    usual = statistics.median(shares.wait)
    if len(shares.wait) > 1 and waited - usual > _UNEVEN:
        return (
            f"worker {slowest} waits {waited:.0%} of the time for input, the others "
            f"{usual:.0%}: look at its disk, its network and what else runs there"
        )
    if busy < BUSY:
        return (
            f"steps wait {waited:.0%} of the time and decoding is at work for {busy:.0%}: "
            "reading is the limit; put the shards on a nearer or faster disk, or in memory"
        )
    return f"steps wait {waited:.0%} of the time, {_faster_decoding(decoder)}"


def _faster_decoding(decoder: str | None) -> str:
    if decoder is None:
        return "parsing is the limit: more cores a worker would help"
    if decoder == "tf":
        return (
            "decoding is the limit: pip install 'tenfold[fast]', more cores a worker, or smaller "
            "images (resize them when writing)"
        )
    return (
        "decoding is the limit: more cores a worker, smaller images (resize them when "
        "writing), or --decoder=turbo_scaled where they are far larger than --image_size"
    )


def shares_of(rows: Sequence[tuple[float, ...]], *, communication_s: float) -> Shares:
    """Returns the shares of all workers from what each one's `timing.Stopwatch` read.

    `communication_s` is the time that one all-reduce of the gradients takes.
    """
    step_s = max(row[2] for row in rows)
    return Shares(
        wait=tuple(row[0] for row in rows),
        decode=tuple(row[1] for row in rows),
        communication=min(1.0, communication_s / max(step_s, 1e-9)),
    )
