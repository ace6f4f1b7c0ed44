"""Imports those parts of Keras that training does not use at their first use.

`import keras` imports `keras.visualization` and `keras.wrappers`, and these import matplotlib and
scikit-learn, with SciPy, wherever they are installed: a third of the time that a worker's imports
take. The modules stay there for programs that use them.
"""

import importlib.abc
import importlib.machinery
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

# Keras 3 has each public module twice, before 3.10 below `keras.api`.
DEFERRED: Final = frozenset(
    {"keras.src.visualization"}
    | {
        f"{parent}.{name}"
        for parent in ("keras", "keras._tf_keras.keras", "keras.api", "keras.api._tf_keras.keras")
        for name in ("visualization", "wrappers")
    }
)


class DeferredLoader(importlib.abc.Loader):
    """Runs a module when a name is first looked up that it does not have."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader
        self._lock = threading.RLock()  # protects `_begun`; other threads wait for the module
        self._begun = False

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Create the module as the wrapped loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Make the module run at the first look-up."""

        def look_up(name: str) -> Any:
            # The import system and `inspect` ask all modules for names of this form.
            if not name.startswith("__") or name == "__all__":
                with self._lock:
                    if not self._begun:
                        self._begun = True
                        self._loader.exec_module(module)
                if name in module.__dict__:
                    return module.__dict__[name]
            raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")

        module.__dict__["__getattr__"] = look_up


class DeferringFinder(importlib.abc.MetaPathFinder):
    """Finds the deferred modules where Python would find them."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a deferred module, None for every other module."""
        if name not in DEFERRED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = DeferredLoader(spec.loader)
        return spec


def defer_unused_keras_modules() -> None:
    """Defer the import of these modules in this process. Call it before Keras is imported."""
    if not any(isinstance(finder, DeferringFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, DeferringFinder())
