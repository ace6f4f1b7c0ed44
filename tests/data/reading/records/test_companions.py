"""Masks, boxes and further images keep to their image under crop and flip."""

import io
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tenfold.data.format.manifest import Feature
from tenfold.data.reading.decoding.tf_decoder import TensorFlowDecoder
from tenfold.data.reading.feeding.input_spec import InputSpec
from tenfold.data.reading.records.companions import (
    Companions,
    crop_nearest,
    decode_mask,
    move_boxes,
)

SIZE = (64, 80)
# top, left, height, width, mirrored
CROPS = [(0.0, 0.0, 1.0, 1.0, 0.0), (0.25, 0.1, 0.5, 0.6, 1.0), (0.5, 0.5, 0.5, 0.5, 0.0)]


def png(pixels: Any, mode: str | None = None) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, "PNG")
    return out.getvalue()


def scene(box: tuple[int, int, int, int]) -> tuple[bytes, bytes]:
    """Return an image that is white in a box (top, left, bottom, right), and its mask."""
    top, left, bottom, right = box
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return png(np.repeat(mask[:, :, None] * 255, 3, axis=2)), png(mask)


SPEC = InputSpec(
    features=(
        Feature("boxes", "float", (None, 4)),
        Feature("image", "image", (*SIZE, 3)),
        Feature("mask", "image", (*SIZE, 1)),
        Feature("other", "image", (*SIZE, 3)),
    ),
    image_shapes={"image": (48, 56, 3), "mask": (48, 56, 1), "other": (32, 32, 3)},
    num_classes=0,
    masks=("mask",),
    boxes=("boxes",),
)


@pytest.mark.parametrize("crop", CROPS)
def test_mask_and_boxes_move_with_the_image(crop: tuple[float, ...]) -> None:
    box = (20, 24, 60, 72)
    image, mask = scene(box)
    crops = tf.constant([crop], tf.float32)
    shares = np.array(box, np.float32) / np.array([*SIZE, *SIZE], np.float32)
    boxes = tf.RaggedTensor.from_row_lengths(tf.constant([shares]), [1])
    features = {"mask": tf.constant([mask]), "boxes": boxes, "other": tf.constant([image])}
    read = Companions(SPEC).read(features, crops)
    pixels = TensorFlowDecoder((48, 56, 3))(tf.constant([image]), crops)
    white = pixels.numpy()[0, :, :, 0] > 127
    found = read["mask"].numpy()[0, :, :, 0]
    assert read["mask"].shape == (1, 48, 56, 1)
    assert read["other"].shape == (1, 32, 32, 3)
    # Nearest and bilinear may differ in the pixels at the border.
    assert (white != (found == 1)).sum() <= 2 * (48 + 56)
    rows, columns = np.nonzero(found)
    top, left, bottom, right = read["boxes"].values.numpy()[0] * [48, 56, 48, 56]
    seen = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    np.testing.assert_allclose(seen, (top, left, bottom, right), atol=1.5)


def test_box_outside_of_the_crop_has_no_area() -> None:
    boxes = tf.constant([[[0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 0.9, 0.9]]])
    crops = tf.constant([[0.5, 0.5, 0.5, 0.5, 0.0]])
    moved = move_boxes(boxes, crops).numpy()[0]
    expected = np.array([[0, 0, 0, 0], [0, 0, 0.8, 0.8]])
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_nearest_resize_keeps_classes() -> None:
    pixels = np.array([[1, 2], [3, 4]], np.uint8)
    whole = crop_nearest(pixels, np.array([0, 0, 1, 1, 0], np.float32), (4, 4))
    assert whole.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    flipped = crop_nearest(pixels, np.array([0, 0, 1, 1, 1], np.float32), (2, 2))
    assert flipped.tolist() == [[2, 1], [4, 3]]


def test_palette_mask_gives_indices() -> None:
    image = Image.fromarray(np.array([[0, 7], [200, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0] * 256)
    out = io.BytesIO()
    image.save(out, "PNG")
    assert decode_mask(out.getvalue()).tolist() == [[0, 7], [200, 1]]


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (png(np.zeros((2, 2, 3), np.uint8)), "a mask of mode RGB has colours, not classes"),
        (png(np.full((2, 2), 300, np.uint16)), "a mask has class 300; classes end at 255"),
        (b"no image", "a mask cannot be decoded"),
    ],
    ids=["colours", "large class", "no image"],
)
def test_what_is_no_mask_is_refused(encoded: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_mask(encoded)
