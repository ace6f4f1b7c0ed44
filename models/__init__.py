"""The model protocol, the training loop and the built-in models.

Every name of `__all__` is imported on first use, so that importing this package loads neither
TensorFlow nor Keras.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tenfold.models import keras_fit
    from tenfold.models.model_spec import ModelFunction, ModelSpec
    from tenfold.models.train_config import TrainConfig

# The module that defines each public name; keras_fit is a module itself.
_MODULES: Final = {
    "ModelFunction": "model_spec",
    "ModelSpec": "model_spec",
    "TrainConfig": "train_config",
}

__all__ = ["ModelFunction", "ModelSpec", "TrainConfig", "keras_fit"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "keras_fit":
        return importlib.import_module("tenfold.models.keras_fit")
    if name not in _MODULES:
        raise AttributeError(f"module 'tenfold.models' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tenfold.models.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, for completion."""
    return __all__
