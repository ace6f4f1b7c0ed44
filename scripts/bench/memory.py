"""Measures the reader's memory over many epochs, and how well it shuffles.

python scripts/bench/memory.py SHARDS [EPOCHS]

Prints the resident memory after each tenth of the epochs. Then, for several sizes of the shuffle
buffer, the mean distance in batches between the positions of a record in two epochs, as a share of
the distance in a full shuffle (a third of an epoch).
"""

import os
import sys
from collections.abc import Iterator

import numpy as np
import psutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from tenfold.data.reading.batches import training_batches
from tenfold.data.reading.dataset import steps_per_epoch
from tenfold.data.reading.read_config import ReadConfig, read_config
from tenfold.data.reading.read_options import ReadOptions
from tenfold.data.storage.read_manifest import read_manifest

BATCH = 64


def config_of(shards: str, buffer_bytes: int, side: int) -> ReadConfig:
    options = ReadOptions(image_size=(side, side), shuffle_buffer_bytes=buffer_bytes)
    return read_config(shards, split="train", global_batch_size=BATCH, options=options)


def memory_over_epochs(shards: str, epochs: int) -> Iterator[tuple[int, float]]:
    """Yield (epochs done, resident MB)."""
    iterator = iter(training_batches(config_of(shards, 16 * 10**6, 64), tail=False))
    steps = steps_per_epoch(shards, global_batch_size=BATCH)
    for epoch in range(1, epochs + 1):
        for _ in range(steps):
            next(iterator)
        if epoch % max(1, epochs // 10) == 0:
            yield epoch, psutil.Process().memory_info().rss / 1e6


def mixing(shards: str, buffer_bytes: int) -> tuple[float, float]:
    """Measure how well the records of two epochs are shuffled.

    Returns:
      The mean distance between the two positions of a record, and the number of pairs of records
      that share a batch in both epochs; both as multiples of a full shuffle's.
    """
    steps = steps_per_epoch(shards, global_batch_size=BATCH)
    positions: list[dict[int, int]] = [{}, {}]
    for index, batch in enumerate(training_batches(config_of(shards, buffer_bytes, 8), epochs=2)):
        for fingerprint in batch.fingerprints.numpy().tolist():
            positions[index // steps][fingerprint] = index % steps
    both = [
        (positions[0][key], positions[1][key]) for key in positions[0].keys() & positions[1].keys()
    ]
    first, second = np.array(both).T
    travelled = float(np.abs(first - second).mean() / (steps / 3))
    pairs = np.zeros((steps, steps))
    np.add.at(pairs, (first, second), 1)
    together = float((pairs * (pairs - 1)).sum())
    expected = float((pairs.sum(1) * (pairs.sum(1) - 1)).sum() / steps)
    return travelled, together / expected


if __name__ == "__main__":
    folder = sys.argv[1]
    for done, megabytes in memory_over_epochs(folder, int(sys.argv[2]) if sys.argv[2:] else 50):
        print(f"epoch {done:>3}: {megabytes:,.0f} MB", flush=True)
    total = read_manifest(folder).split("train").num_bytes
    for share in (0.001, 0.02, 0.1, 0.5):
        travelled, together = mixing(folder, int(total * share))
        print(
            f"buffer of {share:.1%} of the data: records move {travelled:.2f} of a full "
            f"shuffle's distance, {together:.2f} times as many pairs share a batch again"
        )
