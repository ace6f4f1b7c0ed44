"""Runs on lists, boxes and mixtures: the same on one worker, and on three with a restart."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

RECORDS = 96

BOXES = """
import keras
import tensorflow as tf


def prep(features):
    boxes = features["boxes"].to_tensor(shape=[None, 4, 4])
    rows = features["boxes"].row_lengths()
    there = tf.sequence_mask(rows, 4, tf.float32)[..., None]
    return features["image"], tf.concat([there, boxes], axis=-1), 1.0 + tf.cast(rows, tf.float32)


def loss(y, predicted):
    there = y[..., :1]
    distance = tf.abs(y[..., 1:] - predicted[..., 1:])
    return tf.reduce_sum(there * distance + (there - predicted[..., :1]) ** 2, axis=[1, 2])


def build(spec):
    layers = keras.layers
    image = keras.Input(spec.image_shape)
    hidden = layers.Conv2D(4, 5, 4, activation="relu")(layers.Rescaling(1 / 255)(image))
    boxes = layers.Reshape((4, 5))(layers.Dense(20)(layers.Flatten()(hidden)))
    model = keras.Model(image, boxes)
    model.compile("adam", loss)
    return model
"""


def tokens() -> pa.Table:
    """Lists of 1 to 40 tokens, and whether they are large."""
    draw = np.random.default_rng(1)
    lists = [draw.integers(0, 50, draw.integers(1, 41)).tolist() for _ in range(RECORDS)]
    large = [int(np.mean(found) > 25) for found in lists]
    return pa.table({"history": pa.array(lists, pa.list_(pa.int64())), "clicked": large})


def boxes() -> pa.Table:
    """Images with none to three boxes."""
    draw = np.random.default_rng(2)
    images, lists = [], []
    for _ in range(RECORDS):
        pixels, found = draw.integers(0, 40, (24, 32, 3), np.uint8), []
        for _ in range(draw.integers(0, 4)):
            top, left = draw.uniform(0, 0.6, 2)
            found.append([top, left, top + 0.3, left + 0.4])
            pixels[int(top * 24) : int(top * 24) + 7, int(left * 32) : int(left * 32) + 12] += 180
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        images.append(out.getvalue())
        lists.append(found)
    kind = pa.list_(pa.list_(pa.float32()))
    return pa.table({"image": images, "boxes": pa.array(lists, kind)})


KINDS = {
    # As in docs/your-data.md.
    "tokens": (
        tokens,
        [
            "--shards=shards",
            "--model=text",
            "--inputs=history",
            "--target=clicked",
            "--bucket=history",
        ],
    ),
    # Each batch has 8 records of one data set and 4 of the other, of which five steps are a pass.
    "mixture": (
        tokens,
        ["--shards=shards:2,more:1", "--model=text", "--inputs=history", "--target=clicked"],
    ),
    "boxes": (
        boxes,
        [
            "--shards=shards",
            "--model=detector.py:build",
            "--map=detector.py:prep",
            "--boxes=boxes",
            "--augment=flip,crop",
        ],
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_one_worker(
    kind: str, tenfold: Any, tmp_path: Path, read_metrics: Any
) -> None:
    make, flags = KINDS[kind]
    table = make()
    (tmp_path / "detector.py").write_text(BOXES)
    for name, rows in (("shards", table), ("more", table.slice(0, 21))):
        pq.write_table(rows, tmp_path / f"{name}.parquet")
        write = (f"--source={name}.parquet", f"--output={name}", "--num_workers=3")
        written = tenfold("write", *write, "--worker_counts=1,3", cwd=tmp_path)
        assert written.status == 0, written.err
    shared = ["--epochs=2", "--global_batch_size=12", *flags]
    one = tenfold("launch", *shared, "--num_workers=1", "--run_dir=one", cwd=tmp_path)
    assert one.status == 0, one.err
    restarted = [
        "--num_workers=3",
        "--run_dir=three",
        "--checkpoint_every=3",
        "--steps_per_execution=3",
        "--inject=kill:worker=1,step=11",
        "--max_restarts=1",
    ]
    three = tenfold("launch", *shared, *restarted, cwd=tmp_path)
    assert three.status == 0, three.err
    expected, found = (read_metrics(tmp_path / name) for name in ("one", "three"))
    losses = {line["step"]: line["loss"] for line in expected if line["kind"] == "step"}
    again = {line["step"]: line["loss"] for line in found if line["kind"] == "step"}
    assert again == pytest.approx(losses, rel=1e-3)
    assert max(losses.values()) > 1.02 * min(losses.values()), "the comparison cannot fail"
    receipts = [line["receipt"] for line in found if line["kind"] == "epoch"]
    assert [(receipt["exact"], receipt["records"]) for receipt in receipts] == [
        (True, RECORDS)
    ] * 2
    assert "restart" in three.out
    passes = [line["other_receipts"] for line in found if line["kind"] == "epoch"]
    for each in filter(None, passes):
        # 12 steps an epoch are two passes and two steps, then two passes and four steps.
        assert [(more["exact"], more["records"], more["expected"]) for more in each] == [
            (True, 40, 42)
        ]
    assert bool(passes[0]) == (kind == "mixture")
