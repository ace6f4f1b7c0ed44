"""Compares readers of records with lists: a list of ids, one of texts, a text and two numbers.

python scripts/bench/read_lists.py DATA [READER…] [--rows=N] [--rounds=N], see scripts/bench/read

As read_rows.py, on ragged tensors. Tenfold's reader fingerprints each record as in training.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from read_rows import Reader, compare, tenfold_of, tf_data_of


def make_lists(base: Path, rows: int) -> None:
    """Make the shards once."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tenfold.data import LayoutPolicy, write_shards

    if (shards_of(base, rows) / "manifest.json").exists():
        return
    base.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    tags = np.array(["red", "green", "blue", "violet", "orange"])
    table = pa.table(
        {
            "history": lists(rng.integers(0, 100_000, rows * 20), rng.integers(0, 40, rows)),
            "tags": lists(tags[rng.integers(0, 5, rows * 3)], rng.integers(0, 6, rows)),
            "query": [f"query number {number}" for number in rng.integers(0, 10_000, rows)],
            "price": rng.normal(size=rows).astype(np.float32),
            "label": rng.integers(0, 2, rows),
        }
    )
    source = base / f"read-lists-{rows}.parquet"
    pq.write_table(table, source)
    write_shards(str(source), str(shards_of(base, rows)), policy=LayoutPolicy(num_workers=1))


def lists(values: Any, lengths: Any) -> Any:
    """Return a column of lists of about `lengths` values."""
    import numpy as np
    import pyarrow as pa

    ends = np.minimum(np.cumsum(lengths), len(values))
    return pa.ListArray.from_arrays(np.append(0, ends).astype(np.int32), pa.array(values))


def shards_of(base: Path, rows: int) -> Path:
    return base / f"read-lists-{rows}"


def tenfold(base: Path, rows: int) -> Callable[[], None]:
    """Tenfold: shuffled within its lanes, with fingerprints."""
    return tenfold_of(shards_of(base, rows), rows)


def tf_data(base: Path, rows: int, *, shuffle: bool) -> Callable[[], None]:
    """tf.data with a parse of whole batches into ragged tensors."""
    import tensorflow as tf

    features = {
        "history": tf.io.RaggedFeature(tf.int64),
        "tags": tf.io.RaggedFeature(tf.string),
        "query": tf.io.FixedLenFeature([], tf.string),
        "price": tf.io.FixedLenFeature([], tf.float32),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    return tf_data_of(shards_of(base, rows), rows, features, shuffle=shuffle)


READERS: dict[str, Reader] = {
    "tenfold": tenfold,
    "tf_data_shuffled": lambda base, rows: tf_data(base, rows, shuffle=True),
    "tf_data": lambda base, rows: tf_data(base, rows, shuffle=False),
}

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    compare(__file__, READERS, make_lists, rows=200_000)
