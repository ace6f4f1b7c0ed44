"""The bottleneck that the shares of a run give, and the advice against it."""

import pytest

from tenfold.models.training.measuring.bottleneck import Shares, find_bottleneck, shares_of
from tenfold.models.training.measuring.timing import Stopwatch

# wait and decode shares of each worker, communication, decoder -> bound, words of the advice
TABLE = [
    ([0.1, 0.1], [0.9, 0.9], 0.2, "turbo", "compute", "steps wait for input 10% of the time"),
    ([0.1, 0.1], [0.3, 0.3], 0.6, "turbo", "communication", "--global_batch_size"),
    ([0.7, 0.7], [0.9, 0.9], 0.1, "turbo", "input", "--decoder=turbo_scaled"),
    ([0.7, 0.7], [0.9, 0.9], 0.1, "tf", "input", "pip install 'tenfold[fast]'"),
    ([0.7, 0.7], [0.9, 0.9], 0.1, None, "input", "parsing is the limit"),
    ([0.7, 0.7], [0.2, 0.2], 0.1, "turbo", "input", "reading is the limit"),
    ([0.1, 0.8, 0.1], [0.9] * 3, 0.1, "tf", "input", "worker 1 waits for input 80% of the time"),
    ([0.8], [0.9], 0.0, "tf", "input", "decoding is the limit"),
]


@pytest.mark.parametrize(("wait", "decode", "communication", "decoder", "bound", "words"), TABLE)
def test_bottleneck_and_its_advice(
    wait: list[float],
    decode: list[float],
    communication: float,
    decoder: str | None,
    bound: str,
    words: str,
) -> None:
    found = find_bottleneck(Shares(tuple(wait), tuple(decode), communication), decoder=decoder)
    assert found.bound == bound
    assert words in found.sentence()
    assert found.sentence().startswith(f"{bound}-bound: ")
    assert found.to_json()["wait"] == tuple(wait)


def test_stopwatch_leaves_out_the_first_of_several_calls() -> None:
    watch = Stopwatch()
    watch.add(2, 100.0, wait_s=50.0, decode_s=10.0)
    watch.add(4, 8.0, wait_s=2.0, decode_s=8.0)
    assert watch.read(parallel_batches=2) == (0.25, 0.5, 2.0)
    watch.add(1, 3.0, wait_s=0.0, decode_s=0.0)
    assert watch.read(parallel_batches=2) == (0.0, 0.0, 3.0)


def test_stopwatch_uses_first_call_if_only_one() -> None:
    watch = Stopwatch()
    watch.add(2, 10.0, wait_s=5.0, decode_s=10.0)
    assert watch.read(parallel_batches=1) == (0.5, 1.0, 5.0)


def test_communication_is_share_of_slowest_step() -> None:
    shares = shares_of([(0.1, 0.2, 0.5), (0.3, 0.4, 2.0)], communication_s=1.0)
    assert shares == Shares((0.1, 0.3), (0.2, 0.4), 0.5)
