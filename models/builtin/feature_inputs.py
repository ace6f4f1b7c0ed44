"""The first layers of the built-in models: features of any kind as one vector per record.

All layers are Keras's own, and what depends on the statistics is kept in weights, so that the
saved model loads in plain Keras and a checkpoint restores it.
"""

import inspect
from typing import Any, Final

import keras
from keras import ops

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE, Feature
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics
from tenfold.models.builtin.heads import unit_scale
from tenfold.models.model_spec import ModelSpec

# Integers with so many different values are categories; with fewer or more they are numbers.
_CATEGORIES: Final = range(3, 65)
# Text that is longer on average is read by its character n-grams, shorter text is a category.
_MAX_CATEGORY_BYTES: Final = 30
# Rows and columns of the embeddings of integers, and of text and lists. They do not depend on the
# data, so that a model fits other shards too.
_INTEGERS: Final = (4096, 8)
_TEXTS: Final = (16384, 16)
_GRAMS: Final = (16384, 32)
# The lengths of the character n-grams.
_GRAM_LENGTHS: Final = (3, 5)
# Characters of a text that are read.
_MAX_CHARACTERS: Final = 1024
# The smallest int64 marks no entry of a list: what is hashed to 0 must not occur in it.
_NO_INTEGER: Final = -(2**63)
# ASCII without capital letters, Latin, Greek, Cyrillic; all other characters count as one.
_CHARACTERS: Final = [
    char for char in map(chr, (*range(0x20, 0x7F), *range(0xA1, 0x530))) if char == char.lower()
]


def encode_inputs(spec: ModelSpec, *, model: str) -> tuple[Any, Any]:
    """Return the inputs of a model, and their values as one vector per record.

    Images are scaled to -1 … 1 and flattened. Numbers are normalised by the statistics, if there
    are any. Categories, lists and texts become embeddings.

    Args:
      spec: the features that the model is fed, and their statistics.
      model: the model's name, for messages.

    Returns:
      (the lone input or a dict of inputs by feature, float32 [batch, units]).

    Raises:
      UserError: a feature has a shape that no layer takes.
    """
    inputs, numbers, scales, encoded = {}, [], [], []
    for feature in spec.inputs:
        found = spec.statistics.feature(feature.name) if spec.statistics else None
        if feature.kind == IMAGE:
            tensor = keras.Input(_image_shape(feature, spec), name=input_name(feature))
            scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(tensor)
            encoded.append(keras.layers.Flatten()(scaled))
        elif _is_number(feature, found):
            tensor = keras.Input(feature.shape, name=input_name(feature))
            # float32 under a mixed-precision policy too: float16 ends at 65,504.
            numbers.append(keras.layers.Flatten(dtype="float32")(tensor))
            scales += [unit_scale(found)] * numbers[-1].shape[-1]
        else:
            tensor = list_input(feature, model=model)
            encoded.append(_embedded(tensor, feature, found))
        inputs[feature.name] = tensor
    if numbers:
        encoded.insert(0, _normalised(_joined(numbers, dtype="float32"), scales))
    return (next(iter(inputs.values())) if len(inputs) == 1 else inputs), _joined(encoded)


def image_input(spec: ModelSpec, *, model: str) -> Any:
    """Return the Keras input of the image.

    Raises:
      UserError: the model is fed no image.
    """
    if spec.image_shape is None:
        raise UserError(f"model '{model}' needs images; these shards have no 'image' feature")
    images = [feature for feature in spec.inputs if feature.kind == IMAGE]
    return keras.Input(spec.image_shape, name=input_name(images[0]) if images else IMAGE)


def list_input(feature: Feature, *, model: str) -> Any:
    """Return the Keras input of text, or of a list, which may be ragged.

    Raises:
      UserError: the feature has more dimensions than a list, or this Keras has no ragged inputs.
    """
    if len(feature.shape) > 1:
        shape = ", ".join("any" if size is None else str(size) for size in feature.shape)
        raise UserError(
            f"model '{model}' takes numbers, images, texts and lists; feature '{feature.name}' is "
            f"{feature.kind} of shape [{shape}]: leave it out with --inputs=NAME,…, or give a "
            "--model of your own"
        )
    dtype = {"float": "float32", "bytes": "string"}.get(feature.kind, feature.kind)
    name = input_name(feature)
    if feature.shape != (None,):
        return keras.Input(feature.shape, dtype=dtype, name=name)
    if "ragged" not in inspect.signature(keras.Input).parameters:
        raise UserError(
            f"the lists of feature '{feature.name}' differ in length, and Keras "
            f"{keras.__version__} has no ragged inputs, as 3.9 and newer have: run 'pip install "
            f"-U keras', or give --pad={feature.name}:LENGTH"
        )
    return keras.Input(feature.shape, dtype=dtype, ragged=True, name=name)


def input_name(feature: Feature) -> str:
    """Return the name of a feature's input: Keras takes no slash in it."""
    return feature.name.replace("/", "_")


def text_vector(text: Any, found: FeatureStatistics | None) -> Any:
    """Return the mean embedding of the character n-grams of each text, [batch, 64].

    Keras has no layer that hashes the words of a text, and a layer of ours would need Tenfold to
    load the model. N-grams need no vocabulary, and cover parts of words.

    Args:
      text: strings in UTF-8, [batch].
      found: the statistics of the feature; a length of texts that is known saves padding.
    """
    longest = found.length[2] if found and found.length else _MAX_CHARACTERS
    characters = keras.layers.TextVectorization(
        standardize="lower",
        split="character",
        vocabulary=_CHARACTERS,
        output_sequence_length=min(longest, _MAX_CHARACTERS) + _GRAM_LENGTHS[-1],
    )(text)
    rows = _GRAMS[0] - 1
    bags = []
    for length in _GRAM_LENGTHS:
        last = characters.shape[1] - length + 1
        parts = [characters[:, start : start + last] for start in range(length)]
        code = parts[0]
        for part in parts[1:]:
            code = ops.mod(code * 1_000_003 + part, 2**31 - 1)
        grams = ops.where(ops.equal(parts[0], 0), 0, ops.mod(code, rows) + 1)
        bags.append(mean_embedding(grams, *_GRAMS))
    return _joined(bags)


def mean_embedding(indices: Any, rows: int, columns: int) -> Any:
    """Return the mean embedding of each list; that of an empty list is zeros.

    Args:
      indices: int [batch, length], from 0 to rows - 1; 0 stands for no entry.
      rows: the number of embeddings.
      columns: their size.
    """
    present = ops.expand_dims(ops.cast(ops.not_equal(indices, 0), "float32"), -1)
    embedded = keras.layers.Embedding(rows, columns, dtype="float32")(indices)
    total = ops.sum(embedded * present, axis=1)
    return total / ops.maximum(ops.sum(present, axis=1), 1.0)


def dense(lists: Any) -> Any:
    """Return ragged lists padded with zeros to the longest of the batch."""
    return ops.convert_to_tensor(lists, ragged=False)


def _embedded(tensor: Any, feature: Feature, found: FeatureStatistics | None) -> Any:
    """Return a category, a list or a text as a vector."""
    if feature.shape == ():
        if feature.kind == "bytes" and _is_long(found):
            return text_vector(tensor, found)
        rows, columns = _TEXTS if feature.kind == "bytes" else _INTEGERS
        hashed = keras.layers.Hashing(rows)(tensor)
        return keras.layers.Embedding(rows, columns, dtype="float32")(hashed)
    if feature.kind == "float":
        return _mean_number(tensor, found)
    # Zeros and empty texts fill up lists that the reader padded.
    none: Any = "" if feature.kind == "bytes" else 0 if feature.shape[0] else _NO_INTEGER
    hashed = keras.layers.Hashing(_TEXTS[0], mask_value=none)(tensor)
    lists = hashed if feature.shape[0] else dense(hashed)
    return mean_embedding(lists, *_TEXTS)


def _mean_number(lists: Any, found: FeatureStatistics | None) -> Any:
    """Return the mean of each ragged list of numbers, normalised; 0 for an empty list."""
    present = dense(lists * 0.0 + 1.0)
    values, count = dense(lists), ops.sum(present, axis=1, keepdims=True)
    mean = ops.sum(values, axis=1, keepdims=True) / ops.maximum(count, 1.0)
    return _normalised(mean, [unit_scale(found)]) * ops.minimum(count, 1.0)


def _normalised(numbers: Any, scales: list[tuple[float, float]]) -> Any:
    """Return numbers [batch, units] with the mean and deviation of each unit taken out."""
    if all(scale == (0.0, 1.0) for scale in scales):
        return numbers
    # The statistics are frozen weights: a batch does not change them, a checkpoint restores them.
    layer = keras.layers.BatchNormalization(
        trainable=False, center=False, scale=False, epsilon=0.0, dtype="float32"
    )
    normalised = layer(numbers)
    layer.moving_mean.assign([mean for mean, _ in scales])
    layer.moving_variance.assign([std**2 for _, std in scales])
    return normalised


def _is_number(feature: Feature, found: FeatureStatistics | None) -> bool:
    """Whether a feature is a number, or several, and no category and no list."""
    if feature.kind == "bytes" or None in feature.shape:
        return False
    if feature.kind == "float":
        return True
    if feature.shape == ():
        return found is None or found.distinct not in _CATEGORIES
    # Lists that were padded have lengths that differ.
    padded = found is not None and found.length is not None and found.length[0] != found.length[2]
    return not (padded and len(feature.shape) == 1)


def _is_long(found: FeatureStatistics | None) -> bool:
    length = found.length if found else None
    return length is not None and length[1] > _MAX_CATEGORY_BYTES


def _image_shape(feature: Feature, spec: ModelSpec) -> tuple[int | None, ...]:
    """Return the shape of one of the images: the only one may be resized."""
    several = sum(other.kind == IMAGE for other in spec.inputs) > 1
    return feature.shape if several or spec.image_shape is None else spec.image_shape


def _joined(parts: list[Any], *, dtype: str | None = None) -> Any:
    return parts[0] if len(parts) == 1 else keras.layers.Concatenate(dtype=dtype)(parts)
