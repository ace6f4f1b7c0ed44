"""What belongs to an image: masks and boxes, which move with it, and further images.

All of an image's companions get its crop and its flip, so that they still belong together.
"""

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tenfold.data.format.image_header import check_pixels
from tenfold.data.reading.decoding.tf_decoder import TensorFlowDecoder
from tenfold.data.reading.feeding.feature_specs import FeatureTensor
from tenfold.data.reading.feeding.input_spec import InputSpec
from tenfold.data.runtime.tensorflow_hooks import guarded_callback

_WHOLE: Final = np.array([0, 0, 1, 1, 0], np.float32)
# Pillow's modes whose pixels are numbers, not colours: palette, grey, 16-bit grey, 1 bit.
_MASK_MODES: Final = ("P", "L", "I;16", "I", "1")


class Companions:
    """The masks, boxes and further images of records.

    Args:
      spec: the inputs that the records give.
    """

    def __init__(self, spec: InputSpec) -> None:
        self._masks = {name: spec.image_shapes[name] for name in spec.masks}
        self._boxes = spec.boxes
        self._others = {
            name: TensorFlowDecoder(shape)
            for name, shape in spec.image_shapes.items()
            if name != spec.image and name not in self._masks
        }

    @property
    def exist(self) -> bool:
        """Whether an image has any."""
        return bool(self._masks or self._boxes or self._others)

    def read(
        self, features: dict[str, FeatureTensor], crops: tf.Tensor | None
    ) -> dict[str, FeatureTensor]:
        """Return the features with masks and images decoded, and all companions moved.

        Args:
          features: the features of a batch; these images are still encoded, string [n].
          crops: the crops of the images, float32 [n, 5]; None takes whole images.
        """
        read = dict(features)
        for name, decode in self._others.items():
            read[name] = decode(features[name], crops)
        for name, shape in self._masks.items():
            read[name] = _decode_masks(features[name], crops, shape)
        if crops is not None:
            for name in self._boxes:
                read[name] = move_boxes(features[name], crops)
        return read


def _decode_masks(
    encoded: tf.Tensor, crops: tf.Tensor | None, shape: tuple[int, int, int]
) -> tf.Tensor:
    """Return uint8 [n, height, width, 1]: the class of each pixel."""

    @guarded_callback
    def decode(images: Any, moves: Any) -> Any:
        out = np.empty((len(images), *shape), np.uint8)
        for index, image in enumerate(images):
            move = moves[index] if len(moves) else _WHOLE
            out[index, :, :, 0] = crop_nearest(decode_mask(image), move, shape[:2])
        return out

    moves = tf.zeros([0, 5]) if crops is None else crops
    masks = tf.numpy_function(decode, [encoded, moves], tf.uint8, stateful=False)
    return tf.ensure_shape(masks, [None, *shape])


def decode_mask(encoded: bytes) -> Any:
    """Return the numbers of a mask's pixels, uint8 [height, width]; palettes are not applied.

    Raises:
      ValueError: the image has colours, or numbers above 255, or cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.mode not in _MASK_MODES:
                raise ValueError(
                    f"a mask of mode {image.mode} has colours, not classes: store masks as PNG "
                    "with a palette or one channel"
                )
            check_pixels(image.height, image.width)
            pixels = np.array(image)
    except OSError as error:
        raise ValueError(f"a mask cannot be decoded: {error}") from error
    if pixels.dtype != np.uint8:
        if pixels.max(initial=0) > np.iinfo(np.uint8).max:
            raise ValueError(f"a mask has class {int(pixels.max())}; classes end at 255")
        pixels = pixels.astype(np.uint8)
    return pixels


def crop_nearest(pixels: Any, crop: Any, size: Sequence[int]) -> Any:
    """Return a crop of an image, resized by nearest neighbour, [height, width].

    The window is the one that the decoders cut out of the image.

    Args:
      pixels: [height, width].
      crop: float32 [5], see `random_crops`.
      size: (height, width) of the result.
    """
    rows, columns = (
        _nearest(begin, extent, stored, wanted)
        for begin, extent, stored, wanted in zip(
            crop[:2], crop[2:4], pixels.shape, size, strict=True
        )
    )
    return pixels[rows[:, None], columns[::-1] if crop[4] > 0 else columns]


def _nearest(begin: Any, extent: Any, stored: int, wanted: int) -> Any:
    """Return the index of the stored pixel that is nearest to each wanted one, int64 [wanted]."""
    first = int(begin * np.float32(stored))
    count = max(1, int(extent * np.float32(stored)))
    centers = (np.arange(wanted) + 0.5) * count / wanted
    indices: np.ndarray = first + np.minimum(centers.astype(np.int64), count - 1)
    return np.minimum(indices, stored - 1)


def move_boxes(boxes: FeatureTensor, crops: tf.Tensor) -> FeatureTensor:
    """Return boxes (top, left, bottom, right) as shares of the crops, cut off at their borders.

    A box outside of the crop has no area any more; it stays, beside its class in another list.

    Args:
      boxes: float32 [n, boxes, 4], or ragged in the second dimension.
      crops: float32 [n, 5], see `random_crops`.
    """
    if isinstance(boxes, tf.RaggedTensor):
        each = tf.gather(crops, boxes.value_rowids())
        return boxes.with_values(_moved(boxes.values, each))
    flat = tf.reshape(boxes, [-1, 4])
    each = tf.repeat(crops, tf.size(flat) // 4 // tf.maximum(tf.shape(crops)[0], 1), axis=0)
    return tf.reshape(_moved(flat, each), tf.shape(boxes))


def _moved(boxes: tf.Tensor, crops: tf.Tensor) -> tf.Tensor:
    """Return boxes float32 [n, 4] in their crops, float32 [n, 5]."""
    origin, extent, mirrored = crops[:, :2], crops[:, 2:4], crops[:, 4:] > 0
    first = tf.clip_by_value((boxes[:, :2] - origin) / extent, 0.0, 1.0)
    last = tf.clip_by_value((boxes[:, 2:] - origin) / extent, 0.0, 1.0)
    top, left, bottom, right = first[:, :1], first[:, 1:], last[:, :1], last[:, 1:]
    flipped = tf.concat([top, 1.0 - right, bottom, 1.0 - left], axis=1)
    return tf.where(mirrored, flipped, tf.concat([top, left, bottom, right], axis=1))
