"""``module:function`` and ``file.py:function``: things of the user's own, by name."""

import importlib
import importlib.util
import os
import sys
from typing import Any

from tenfold.data.errors import UserError


def is_reference(text: str) -> bool:
    """Says whether `text` may be ``module:function`` or ``file.py:function``."""
    module, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and bool(module) and not module.endswith(".npz")


def load_reference(text: str, what: str) -> Any:
    """Returns what ``module:function`` or ``file.py:function`` names; `what` is for errors.

    Modules are looked for where the user stands, too.

    Raises:
      UserError: there is no such module, file or attribute, or its import fails.
    """
    module_name, _, attribute = text.rpartition(":")
    module = _load_file(module_name, what) if module_name.endswith(".py") else None
    if module is None:
        module = _load_module(module_name, what)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise UserError(f"{what} '{text}': {module_name} has no '{attribute}'") from None


def _load_file(path: str, what: str) -> Any:
    path = os.path.abspath(os.path.expanduser(path))
    if not os.path.isfile(path):
        raise UserError(f"{what} '{path}' does not exist")
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    _allow_imports_from(os.path.dirname(path))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(path, what, error) from error
    return module


def _load_module(name: str, what: str) -> Any:
    _allow_imports_from(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UserError(f"{what}: there is no module '{name}'") from None
        raise _failed(name, what, error) from error
    except Exception as error:
        raise _failed(name, what, error) from error


def _failed(name: str, what: str, error: Exception) -> UserError:
    return UserError(f"{what}: importing {name} fails: {type(error).__name__}: {error}")


def _allow_imports_from(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)
