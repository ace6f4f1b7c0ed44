"""The model protocol: a function from a `ModelSpec` to a Keras 3 model.

    def build(spec: ModelSpec) -> keras.Model: ...

The function may take no argument too. What it returns may be compiled; where it is not, it
is compiled with Adam, sparse categorical cross-entropy and accuracy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from tenfold.data.format.manifest import Feature


@dataclass(frozen=True)
class ModelSpec:
    """What a model function may want to know.

    `image_shape` is (height, width, channels), None where the shards hold no images;
    images come as float32 from 0 to 255. `inputs` are the features that the model is fed;
    `learning_rate` is that of the command line, None where it was not given.
    """

    inputs: tuple[Feature, ...]
    image_shape: tuple[int, int, int] | None
    num_classes: int
    global_batch_size: int
    steps_per_epoch: int
    epochs: int
    seed: int
    learning_rate: float | None = None


ModelFunction: TypeAlias = Callable[..., Any]
