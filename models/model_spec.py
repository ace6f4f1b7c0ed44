"""The model protocol: a function from a `ModelSpec` to a Keras 3 model.

    def build(spec: ModelSpec) -> keras.Model: ...

The function may also take no argument. A model that it returns uncompiled is compiled with Adam,
sparse categorical cross-entropy and accuracy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from tenfold.data.format.manifest import Feature
from tenfold.data.format.statistics.feature_statistics import SplitStatistics


@dataclass(frozen=True)
class ModelSpec:
    """The shapes of the data and the size of the run, as a model function needs them.

    Attributes:
      inputs: the features that the model is fed; with --map, the tensors of its x, by the keys of
        a dict. A dimension that differs between records is None: the tensor is ragged.
      image_shape: (height, width, channels) in pixels, or None if the shards hold no images.
        Images are float32 from 0 to 255.
      num_classes: the number of classes of `label`; 0 if the shards have no class labels.
      global_batch_size: records per step over all workers.
      steps_per_epoch: steps per epoch, the same on every worker.
      epochs: the number of epochs of the whole run.
      seed: seed of the initial weights and of the order of records.
      learning_rate: the value of --learning_rate, or None if the flag was not given.
      targets: the features that the model is to predict: ``label`` unless --target names others;
        with --map, the tensors of its y; () where there is none.
      statistics: the statistics of the training split's features; None if the shards have none.
        With --map, of the tensors that are features as they are stored.
      x: the `tf.TypeSpec` of what the model is fed, or a dict or tuple of them, as the batches
        hold them; uint8 becomes float32 on the way.
      y: the same of the targets; None where there is none.
    """

    inputs: tuple[Feature, ...]
    image_shape: tuple[int, int, int] | None
    num_classes: int
    global_batch_size: int
    steps_per_epoch: int
    epochs: int
    seed: int
    learning_rate: float | None = None
    targets: tuple[Feature, ...] = ()
    statistics: SplitStatistics | None = None
    x: Any = None
    y: Any = None


# `Any` is keras.Model: this module is imported before TensorFlow is.
ModelFunction: TypeAlias = Callable[..., Any]
