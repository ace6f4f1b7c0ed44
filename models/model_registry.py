"""From a model's name to the function that makes it; nothing is imported before it is used."""

from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.runtime.user_code import get_user_attribute, import_user_module, user_file_path
from tenfold.models.model_spec import ModelFunction

BUILT_IN: Final = {
    "cnn": "tenfold.models.builtin.cnn:build",
    "head": "tenfold.models.builtin.dense:build_head",
    "mlp": "tenfold.models.builtin.dense:build_mlp",
    "resnet50": "tenfold.models.builtin.resnet50:build",
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
    if place.endswith(".py") and not user_file_path(place, working_dir).is_file():
        raise UserError(f"{what} '{name}': there is no file {user_file_path(place, working_dir)}")


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

    Raises:
      UserError: the name, the module, the file or the attribute does not exist. What the
        import itself raises passes.
    """
    check_own_name(name, working_dir=working_dir, what=what)
    place, _, attribute = name.rpartition(":")
    module = import_user_module(place, what, working_dir=working_dir)
    return get_user_attribute(module, attribute, f"{what} '{name}'")
