"""The tensors of the features of a batch, as a record reader gives them: dtypes and shapes."""

from typing import Any, Final, TypeAlias

import tensorflow as tf

from tenfold.data.format.manifest import IMAGE, Feature
from tenfold.data.reading.feeding.input_spec import InputSpec, is_ragged

# A feature of a batch of records.
FeatureTensor: TypeAlias = tf.Tensor | tf.RaggedTensor

# The dtype of each kind of feature; images are encoded.
DTYPES: Final = {"image": tf.string, "bytes": tf.string, "float": tf.float32, "int64": tf.int64}


def feature_specs(spec: InputSpec) -> dict[str, Any]:
    """Return the `tf.TypeSpec` of each feature of a batch that a record reader gives."""
    return {feature.name: _spec(feature, spec) for feature in spec.features}


def _spec(feature: Feature, spec: InputSpec) -> Any:
    dtype = DTYPES[feature.kind]
    if feature.name in spec.image_shapes:
        return tf.TensorSpec([None, *spec.image_shapes[feature.name]], tf.uint8)
    if feature.sequence:
        inner = step_shape(feature)
        if None in inner:
            return tf.RaggedTensorSpec([None, None, None], dtype, 2)
        if feature.shape[0] is None:
            return tf.RaggedTensorSpec([None, None, *inner], dtype, 1)
        return tf.TensorSpec([None, feature.shape[0], *inner], dtype)
    if is_ragged(feature):
        rank = 1 + feature.shape.index(None)
        return tf.RaggedTensorSpec([None, *feature.shape], dtype, rank)
    return tf.TensorSpec([None, *feature.shape], dtype)


def step_shape(feature: Feature) -> tuple[int | None, ...]:
    """Return the shape of one step of a sequence; images stay encoded."""
    return () if feature.kind == IMAGE else feature.shape[1:]
