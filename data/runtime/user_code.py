"""Objects of the user's own code, by name: ``module:name`` and ``file.py:name``."""

import importlib
import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from tenfold.data.errors import UserError, did_you_mean

# Packages whose modules have other names.
_PACKAGE_OF: Final = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def names_user_object(text: str) -> bool:
    """Return True if `text` has the form ``module:name`` or ``file.py:name``."""
    place, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and bool(place) and not place.endswith(".npz")


def load_user_object(text: str, kind: str, *, working_dir: str = "") -> Any:
    """Return the object that `text` names.

    Args:
      text: ``module:name`` or ``file.py:name``.
      kind: the kind of object, for messages: ``transform``.
      working_dir: the folder to look it up in; "" is the current one.

    Raises:
      UserError: there is no such module, file or attribute, or its import fails.
    """
    place, _, name = text.rpartition(":")
    try:
        module = import_user_module(place, kind, working_dir=working_dir)
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{kind}: importing {place} fails: {reason}") from error
    return get_user_attribute(module, name, f"{kind} '{text}'")


def import_user_module(place: str, kind: str, *, working_dir: str = "") -> ModuleType:
    """Import a module, or a file, as Python would run it.

    The folder of the file, or `working_dir` for a module, comes first on `sys.path`: the user's
    own packages may be called ``data`` or ``models``.

    Args:
      place: the name of a module, or a path that ends in ``.py``.
      kind: the kind of object that is looked for, for messages.
      working_dir: the folder that paths and modules are relative to; "" is the current one.

    Raises:
      UserError: there is no such module or file. Exceptions of the import itself propagate.
    """
    if place.endswith(".py"):
        return _import_file(user_file_path(place, working_dir), kind)
    folder = working_dir or os.getcwd()
    if not place.startswith("tenfold."):
        _put_first(folder)
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # the module exists; a module that it imports does not
        raise UserError(
            f"{kind}: there is no module '{place}' in {folder} or on sys.path"
        ) from None


def get_user_attribute(module: ModuleType, name: str, subject: str) -> Any:
    """Return the attribute `name` of a module; `subject` begins the message.

    Raises:
      UserError: the module has no such attribute.
    """
    try:
        return getattr(module, name)
    except AttributeError:
        public = [known for known, value in vars(module).items() if _is_own(module, known, value)]
        hint = f": {did_you_mean(name, public)}" if public else ""
        raise UserError(f"{subject}: {module.__name__} has no '{name}'{hint}") from None


def _is_own(module: ModuleType, name: str, value: Any) -> bool:
    """Whether `value` is a public function or class that the module itself defines."""
    is_public = callable(value) and not name.startswith("_")
    return is_public and getattr(value, "__module__", None) == module.__name__


def install_hint(module: str) -> str:
    """Return the remedy for a module that a worker cannot import."""
    name = module.split(".")[0]
    return (
        f"run 'python -m pip install {_PACKAGE_OF.get(name, name)}' where the workers run, or, if "
        "it is a module of your own, launch in its folder"
    )


def user_file_path(place: str, working_dir: str) -> Path:
    """Return the absolute path of the file `place`, relative to `working_dir`."""
    return Path(working_dir or ".", place).expanduser().absolute()


def _import_file(path: Path, kind: str) -> ModuleType:
    if not path.is_file():
        raise UserError(f"{kind} '{path}' does not exist")
    _put_first(str(path.parent))
    loader = _UncachedLoader(path.stem, str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    assert spec is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    loader.exec_module(module)
    return module


class _UncachedLoader(SourceFileLoader):
    """Compiles the current text of a file.

    Python's cache of bytecode compares times in whole seconds and sizes: it misses a change
    within the same second that keeps the length.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Return the module's code."""
        del fullname
        return self.source_to_code(self.get_data(self.path), self.path)


def _put_first(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
