"""``embed:backbone.keras[:layer]``: embeddings of images by a frozen model, computed once.

The feature ``embedding``, the output of the model or of one of its layers, replaces the image. A
head can then be trained on the embeddings alone.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE
from tenfold.data.runtime.scratch_folder import scratch_folder
from tenfold.data.runtime.tensorflow_hooks import silence_native_startup
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.transforms.base import RecordSeed, Values, decode_record_image, text_key

EMBEDDING: Final = "embedding"
BATCH_RECORDS: Final = 32
# Raise with any change of the result, so that a resumed write does not mix old and new records.
_REVISION: Final = 2


class Embed:
    """Replaces ``image`` by ``embedding``: float32, in the shape of the layer's output.

    Images are resized to the model's input (bilinear, antialiased). Their values stay 0 to 255:
    a model that needs another range has a rescaling layer.
    """

    copies = 1
    splits: frozenset[str] | None = None

    def __init__(self, text: str) -> None:
        path, layer = _split_layer(text.partition(":")[2])
        data = _read_model(path)
        if data is None:
            raise UserError(f"--transform={text}: there is no model '{path}'")
        self._text, self._path, self._layer = text, path, layer
        self._model: Any = None
        self.key = text_key("embed", _REVISION, layer, hashlib.sha256(data).hexdigest())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_model": None}

    def apply(
        self, records: list[Values], seeds: list[RecordSeed]
    ) -> list[Values | UnusableRecord]:
        """Return the records with embeddings in place of images."""
        import numpy as np

        del seeds
        model = self._model or self._load()
        errors: list[UnusableRecord | None] = []
        batch = np.zeros((len(records), *model.input_shape[1:]), np.float32)
        for row, record in enumerate(records):
            try:
                batch[row] = _model_input(record, model.input_shape)
                errors.append(None)
            except UserError:  # a ValueError too, but a mistake that affects all records
                raise
            except ValueError as error:
                errors.append(UnusableRecord(str(error)))
        outputs = self._outputs(model, batch)
        return [
            error or {**{n: v for n, v in record.items() if n != IMAGE}, EMBEDDING: output}
            for error, record, output in zip(errors, records, outputs, strict=True)
        ]

    def _outputs(self, model: Any, batch: Any) -> Any:
        """Return the model's outputs for `batch`, in calls of exactly BATCH_RECORDS rows.

        Kernels may sum in another order for another batch size; a fixed size keeps the embedding
        of an image independent of the rest of its batch.
        """
        import numpy as np

        parts = []
        for start in range(0, len(batch), BATCH_RECORDS):
            rows = batch[start : start + BATCH_RECORDS]
            padded = np.pad(rows, [(0, BATCH_RECORDS - len(rows))] + [(0, 0)] * (batch.ndim - 1))
            output = model.predict_on_batch(padded)
            parts.append(np.asarray(output, np.float32)[: len(rows)])
        return np.concatenate(parts)

    def _load(self) -> Any:
        with silence_native_startup():
            import keras
            import tensorflow as tf

            # There are as many writing processes as processors, so one thread each suffices, and
            # a single thread sums in the same order on every machine.
            try:
                tf.config.threading.set_intra_op_parallelism_threads(1)
                tf.config.threading.set_inter_op_parallelism_threads(1)
            except RuntimeError:  # TensorFlow is initialised: this is the user's own process
                pass
            tf.config.list_logical_devices()
        try:
            with _local_copy(self._path) as path:
                model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except (ValueError, OSError, TypeError) as error:
            raise UserError(f"--transform={self._text}: {self._path}: {error}") from error
        self._model = self._up_to_layer(keras, model)
        return self._model

    def _up_to_layer(self, keras: Any, model: Any) -> Any:
        """Return the model that ends at the wanted layer, after a check of its input."""
        part = model
        if self._layer:
            names = [layer.name for layer in model.layers]
            if self._layer not in names:
                raise UserError(
                    f"--transform={self._text}: the model has no layer '{self._layer}'; "
                    f"there are: {', '.join(names)}"
                )
            part = keras.Model(model.inputs, model.get_layer(self._layer).output)
        shape = part.input_shape
        if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
            raise UserError(
                f"--transform={self._text}: the model takes {shape}, "
                "it must take one image of a fixed size: (None, height, width, channels)"
            )
        return part


def _split_layer(text: str) -> tuple[str, str]:
    """Return the path and the layer of ``backbone.keras:layer``; "" for no layer."""
    path, colon, layer = text.rpartition(":")
    if colon and path.endswith(".keras"):
        return os.path.expanduser(path), layer
    return os.path.expanduser(text), ""


def _read_model(path: str) -> bytes | None:
    """Return the bytes of a local or remote model file, or None if there is no such file."""
    folder, name = os.path.split(path)
    try:
        return open_folder(folder or ".").read(name)
    except IsADirectoryError:
        return None


@contextmanager
def _local_copy(path: str) -> Iterator[str]:
    """Yield a local path of the model file, a temporary copy if it is remote, for Keras."""
    if not is_url(path):
        yield path
        return
    with scratch_folder() as folder:
        copy = Path(folder, path.rpartition("/")[2])
        copy.write_bytes(_read_model(path) or b"")
        yield str(copy)


def _model_input(record: Values, shape: tuple[int | None, ...]) -> Any:
    """Return the image of a record as the model takes it: float32 (height, width, channels).

    `shape` is the input shape of the model: (None, height, width, channels).
    """
    from PIL.Image import Resampling

    from tenfold.data.format.image_codec import image_to_array

    height, width, channels = shape[1:]
    assert height is not None
    assert width is not None
    pixels = decode_record_image(record, at_least=(height, width)).pixels
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels or 0)
    if mode is None:
        raise UserError(
            f"the model takes images of {channels} channels: give a model for 1, 3 or 4 channels"
        )
    pixels = pixels.convert(mode) if pixels.mode != mode else pixels
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Resampling.BILINEAR)
    return image_to_array(pixels)
