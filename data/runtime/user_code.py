"""``module:name`` and ``file.py:name``: things of the user's own, by name."""

import importlib
import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from tenfold.data.errors import UserError


def names_user_object(text: str) -> bool:
    """Says whether `text` may be ``module:name`` or ``file.py:name``."""
    place, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and bool(place) and not place.endswith(".npz")


def load_user_object(text: str, what: str, *, working_dir: str = "") -> Any:
    """Returns what `text` names, looked up in `working_dir`; `what` is for errors.

    Raises:
      UserError: there is no such module, file or attribute, or its import fails.
    """
    place, _, name = text.rpartition(":")
    try:
        module = import_user_module(place, what, working_dir=working_dir)
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{what}: importing {place} fails: {reason}") from error
    return get_user_attribute(module, name, f"{what} '{text}'")


def import_user_module(place: str, what: str, *, working_dir: str = "") -> ModuleType:
    """Imports a module, or the file at `place`, as Python would run it.

    A module is looked for in `working_dir` ("" is where the process stands) first, what a file
    imports beside it: the user's own packages may be called ``data`` or ``models``.

    Raises:
      UserError: there is no such module or file. What the import itself raises passes.
    """
    if place.endswith(".py"):
        return _import_file(user_file_path(place, working_dir), what)
    folder = working_dir or os.getcwd()
    if not place.startswith("tenfold."):
        _put_first(folder)
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # the module exists, but something that it imports does not
        raise UserError(
            f"{what}: there is no module '{place}' in {folder} or on sys.path"
        ) from None


def get_user_attribute(module: ModuleType, name: str, what: str) -> Any:
    """Returns a module's attribute.

    Raises:
      UserError: there is none.
    """
    try:
        return getattr(module, name)
    except AttributeError:
        raise UserError(f"{what}: {module.__name__} has no '{name}'") from None


def user_file_path(place: str, working_dir: str) -> Path:
    """Returns the absolute path of ``file.py`` as seen from `working_dir`."""
    return Path(working_dir or ".", place).expanduser().absolute()


def _import_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise UserError(f"{what} '{path}' does not exist")
    _put_first(str(path.parent))
    loader = _SourceAsItIs(path.stem, str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    assert spec is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    loader.exec_module(module)
    return module


class _SourceAsItIs(SourceFileLoader):
    """Compiles what the file holds now.

    Python's own cache of bytecode takes a file for unchanged that was changed within a second
    and is as long as before.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Returns the module's code."""
        del fullname
        return self.source_to_code(self.get_data(self.path), self.path)


def _put_first(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
