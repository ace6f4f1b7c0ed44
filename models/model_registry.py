"""Lookup of model functions by name; a module is imported when its function is first needed."""

from typing import Any, Final

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.runtime.user_code import get_user_attribute, import_user_module, user_file_path
from tenfold.models.model_spec import ModelFunction

# Built-in models by name. Paths, not functions: importing one imports Keras.
BUILT_IN: Final = {
    "cnn": "tenfold.models.builtin.cnn:build",
    "head": "tenfold.models.builtin.dense:build_head",
    "mlp": "tenfold.models.builtin.dense:build_mlp",
    "resnet50": "tenfold.models.builtin.resnet50:build",
}


def check_model_name(name: str, *, working_dir: str = "") -> None:
    """Check a model's name without importing anything.

    Args:
      name: a built-in name, ``module:function`` or ``file.py:function``.
      working_dir: the folder that a relative ``file.py`` is looked up in; the current one if
        empty.

    Raises:
      UserError: the name has none of these forms, or the file does not exist.
    """
    if name not in BUILT_IN and ":" not in name:
        raise UserError(
            f"there is no built-in model '{name}': {did_you_mean(name, BUILT_IN)} "
            "(a model of your own is module:function or file.py:function)"
        )
    if name not in BUILT_IN:
        check_own_name(name, working_dir=working_dir, what="model")


def check_own_name(name: str, *, working_dir: str, what: str) -> None:
    """Check the name of an object in the user's code without importing anything.

    Args:
      name: ``module:name`` or ``file.py:name``.
      working_dir: the folder that a relative ``file.py`` is looked up in.
      what: the kind of object, for error messages: ``model``, ``callback``.

    Raises:
      UserError: the name has neither form, or the file does not exist.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute.isidentifier():
        raise UserError(f"{what} '{name}': write module:name or file.py:name")
    if place.endswith(".py") and not user_file_path(place, working_dir).is_file():
        raise UserError(f"{what} '{name}': there is no file {user_file_path(place, working_dir)}")


def find_model(name: str, *, working_dir: str = "") -> ModelFunction:
    """Import the module of the model `name` and return its function.

    Raises:
      UserError: the name, the file or the function does not exist.
    """
    check_model_name(name, working_dir=working_dir)
    found = find_attribute(BUILT_IN.get(name, name), working_dir=working_dir, what="model")
    if not callable(found):
        raise UserError(f"model '{name}' is {type(found).__name__}, not a function")
    return found


def find_attribute(name: str, *, working_dir: str, what: str) -> Any:
    """Import a module of the user's and return the object that `name` refers to.

    Args:
      name: ``module:name`` or ``file.py:name``.
      working_dir: the folder that modules and relative files are looked up in.
      what: the kind of object, for error messages: ``model``, ``callback``.

    Raises:
      UserError: the module, the file or the attribute does not exist. An exception that the
        user's module raises while it is imported passes through.
    """
    check_own_name(name, working_dir=working_dir, what=what)
    place, _, attribute = name.rpartition(":")
    module = import_user_module(place, what, working_dir=working_dir)
    return get_user_attribute(module, attribute, f"{what} '{name}'")
