"""From a model's name to the function that makes it; nothing is imported before it is used."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.models.spec import ModelFunction

BUILT_IN: Final = {
    "cnn": "tenfold.models.cnn:build",
    "head": "tenfold.models.dense:build_head",
    "mlp": "tenfold.models.dense:build_mlp",
    "resnet50": "tenfold.models.resnet50:build",
}


def check_model_name(name: str, *, working_dir: str = "") -> None:
    """Checks what can be checked of a model's name without importing it.

    Raises:
      UserError: it is no built-in name and not of the form ``module:function`` or
        ``file.py:function``, or the file is not there.
    """
    if name not in BUILT_IN and ":" not in name:
        raise UserError(
            f"model '{name}' is none of the built-in ones ({', '.join(BUILT_IN)}): "
            "write module:function or file.py:function for your own"
        )
    if name not in BUILT_IN:
        check_own_name(name, working_dir=working_dir, what="model")


def check_own_name(name: str, *, working_dir: str, what: str) -> None:
    """Checks the name of something of the user's own without importing it.

    Raises:
      UserError: it is not ``module:name`` or ``file.py:name``, or the file is not there.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute.isidentifier():
        raise UserError(f"{what} '{name}': write module:name or file.py:name")
    if place.endswith(".py") and not _file(place, working_dir).is_file():
        raise UserError(f"{what} '{name}': there is no file {_file(place, working_dir)}")


def find_model(name: str, *, working_dir: str = "") -> ModelFunction:
    """Returns the function that `name` names, importing what it takes.

    Raises:
      UserError: the name, the file or the function does not exist.
    """
    check_model_name(name, working_dir=working_dir)
    found = find_attribute(BUILT_IN.get(name, name), working_dir=working_dir, what="model")
    if not callable(found):
        raise UserError(f"model '{name}' is {type(found).__name__}, not a function")
    return found


def find_attribute(name: str, *, working_dir: str, what: str) -> Any:
    """Returns what ``module:name`` or ``file.py:name`` names; `what` is its kind in errors.

    The user's modules are imported as Python would run them in `working_dir` (or beside the
    file): their own packages may be called ``data`` or ``models``.

    Raises:
      UserError: the name, the module, the file or the attribute does not exist.
    """
    check_own_name(name, working_dir=working_dir, what=what)
    place, _, attribute = name.rpartition(":")
    module = _load(place, working_dir, own=not name.startswith("tenfold."))
    if not hasattr(module, attribute):
        raise UserError(f"{what} '{name}': {place} has no '{attribute}'")
    return getattr(module, attribute)


def _load(place: str, working_dir: str, *, own: bool) -> Any:
    if place.endswith(".py"):
        return _load_file(_file(place, working_dir))
    if own:
        _put_first(working_dir or os.getcwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # the user's module exists, but something that it imports does not
        raise UserError(
            f"there is no module '{place}' in {working_dir or os.getcwd()} or on sys.path"
        ) from None


def _file(place: str, working_dir: str) -> Path:
    return Path(working_dir or ".", place).absolute()


def _load_file(path: Path) -> Any:
    _put_first(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _put_first(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
