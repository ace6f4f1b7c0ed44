"""``embed:backbone.keras[:layer]``: the frozen first part of a model, computed once.

The output of the model (or of one of its layers) for the image is stored as the feature
``embedding``, and the image is not: a head is then trained on the embeddings.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE
from tenfold.data.runtime.tensorflow_hooks import silence_native_startup
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.transforms.base import RecordSeed, Values, open_pixels, text_key

EMBEDDING: Final = "embedding"
BATCH: Final = 32
_REVISION: Final = 2


class Embed:
    """Replaces ``image`` by ``embedding``: float32, the shape of the layer's output.

    Images are resized to the model's input (bilinear, antialiased) and given to it as they are
    decoded, 0 to 255: a model that wants another range has a layer for that.
    """

    copies = 1
    splits: frozenset[str] | None = None

    def __init__(self, text: str) -> None:
        path, layer = _split(text.partition(":")[2])
        data = _read(path)
        if data is None:
            raise UserError(f"--transform={text}: there is no model '{path}'")
        self._text, self._path, self._layer = text, path, layer
        self._model: Any = None
        self.key = text_key("embed", _REVISION, layer, hashlib.sha256(data).hexdigest())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_model": None}

    def apply(
        self, records: list[Values], draws: list[RecordSeed]
    ) -> list[Values | UnusableRecord]:
        """Returns the records with embeddings, computed in one batch of a fixed size."""
        import numpy as np

        del draws
        model = self._model or self._load()
        done: list[Values | UnusableRecord | None] = []
        batch = np.zeros((len(records), *model.input_shape[1:]), np.float32)
        for row, record in enumerate(records):
            try:
                batch[row] = _input(record, model.input_shape)
                done.append(None)
            except UserError:  # wrong for all records, not for this one
                raise
            except ValueError as error:
                done.append(UnusableRecord(str(error)))
        outputs = self._outputs(model, batch)
        return [
            bad or {**{n: v for n, v in record.items() if n != IMAGE}, EMBEDDING: output}
            for bad, record, output in zip(done, records, outputs, strict=True)
        ]

    def _outputs(self, model: Any, batch: Any) -> Any:
        """Returns the outputs; every call has BATCH rows, so that a row's never differs."""
        import numpy as np

        parts = []
        for start in range(0, len(batch), BATCH):
            rows = batch[start : start + BATCH]
            padded = np.pad(rows, [(0, BATCH - len(rows))] + [(0, 0)] * (batch.ndim - 1))
            output = model.predict_on_batch(padded)
            parts.append(np.asarray(output, np.float32)[: len(rows)])
        return np.concatenate(parts)

    def _load(self) -> Any:
        with silence_native_startup():
            import keras
            import tensorflow as tf

            # One thread in each of the writing processes: they are as many as processors, and
            # the order of sums stays the same on every machine.
            try:
                tf.config.threading.set_intra_op_parallelism_threads(1)
                tf.config.threading.set_inter_op_parallelism_threads(1)
            except RuntimeError:  # TensorFlow runs already: this is the user's own process
                pass
            tf.config.list_logical_devices()
        try:
            with _local(self._path) as path:
                model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except (ValueError, OSError, TypeError) as error:
            raise UserError(f"--transform={self._text}: {self._path}: {error}") from error
        self._model = self._part(keras, model)
        return self._model

    def _part(self, keras: Any, model: Any) -> Any:
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


def _split(text: str) -> tuple[str, str]:
    """Splits ``backbone.keras:layer``."""
    path, colon, layer = text.rpartition(":")
    if colon and path.endswith(".keras"):
        return os.path.expanduser(path), layer
    return os.path.expanduser(text), ""


def _read(path: str) -> bytes | None:
    """Returns the bytes of a model file, here or on remote storage, None where there is none."""
    folder, name = os.path.split(path)
    try:
        return open_folder(folder or ".").read(name)
    except IsADirectoryError:
        return None


@contextmanager
def _local(path: str) -> Iterator[str]:
    """Gives the path of a file on the local disk: Keras reads no others."""
    if not is_url(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tenfold-") as folder:
        copy = Path(folder, path.rpartition("/")[2])
        copy.write_bytes(_read(path) or b"")
        yield str(copy)


def _input(record: Values, shape: tuple[int | None, ...]) -> Any:
    """Returns the record's image as the model takes it: float32 (height, width, channels)."""
    from PIL.Image import Resampling

    from tenfold.data.format.image_codec import image_to_array

    height, width, channels = shape[1:]
    assert height is not None
    assert width is not None
    image = open_pixels(record, at_least=(height, width)).image
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels or 0)
    if mode is None:
        raise UserError(f"the model takes images of {channels} channels: 1, 3 or 4 are there")
    image = image.convert(mode) if image.mode != mode else image
    if image.size != (width, height):
        image = image.resize((width, height), Resampling.BILINEAR)
    return image_to_array(image)
