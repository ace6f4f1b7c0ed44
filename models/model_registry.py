"""Lookup of model functions by name; a module is imported when its function is first needed."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.runtime.user_code import (
    get_user_attribute,
    import_user_module,
    install_hint,
    user_file_path,
)

if TYPE_CHECKING:
    from tenfold.data.runtime.defined_names import DefinedNames
    from tenfold.models.model_spec import ModelFunction

# Built-in models by name. Paths, not functions: importing one imports Keras.
BUILT_IN: Final = {
    "cnn": "tenfold.models.builtin.cnn:build",
    "head": "tenfold.models.builtin.dense:build_head",
    "mlp": "tenfold.models.builtin.dense:build_mlp",
    "resnet50": "tenfold.models.builtin.resnet50:build",
    "text": "tenfold.models.builtin.text_model:build",
    "unet": "tenfold.models.builtin.unet:build",
}
_APPLICATIONS: Final = "tenfold.models.builtin.applications:build"


def built_in_name(name: str) -> str:
    """Return the built-in model that `name` means: ``unet`` for ``unet:21``, ``keras`` for
    ``keras:EfficientNetV2B0``; "" for other names.
    """
    base, colon, argument = name.partition(":")
    if base == "keras" and colon:
        return base
    if base == "unet" and argument.isdecimal():
        return base
    return name if name in BUILT_IN else ""


def check_model_name(name: str, *, working_dir: str = "") -> None:
    """Check a model's name without importing anything.

    Args:
      name: a built-in name, ``keras:NAME`` of Keras Applications, ``module:function`` or
        ``file.py:function``.
      working_dir: the folder that a relative ``file.py`` is looked up in; the current one if
        empty.

    Raises:
      UserError: the name has none of these forms, or the file does not exist.
    """
    built_in, argument = built_in_name(name), name.partition(":")[2]
    if built_in == "keras" and not argument.isidentifier():
        raise UserError(f"model '{name}': write keras:NAME, as keras:EfficientNetV2B0")
    if not built_in and ":" not in name and not name.endswith(".py"):
        raise UserError(
            f"there is no built-in model '{name}': {did_you_mean(name, BUILT_IN)} "
            "(a model of Keras Applications is keras:NAME, one of your own module:function or "
            "file.py:function)"
        )
    if not built_in:
        check_own_name(name, working_dir=working_dir, what="model")


def check_own_name(name: str, *, working_dir: str, what: str) -> None:
    """Check the name of an object in the user's code by its text, without importing anything.

    Args:
      name: ``module:name`` or ``file.py:name``.
      working_dir: the folder that a relative ``file.py`` is looked up in.
      what: the kind of object, for error messages: ``model``, ``callback``.

    Raises:
      UserError: the name has neither form, the file does not exist or is not Python, or it
        defines no such name; the message lists the names that it defines.
    """
    if name.endswith(".py"):
        path = _existing_file(name, working_dir, f"{what} '{name}'")
        from tenfold.data.runtime.defined_names import defined_names

        found = _choices(defined_names(path), what)
        listed = f": {', '.join(f'{name}:{one}' for one in found)}" if found else ""
        raise UserError(f"{what} '{name}': name one of the file's functions, file.py:name{listed}")
    place, _, attribute = name.rpartition(":")
    if not place or not attribute.isidentifier():
        raise UserError(f"{what} '{name}': write module:name or file.py:name")
    if place.endswith(".py"):
        _check_defined(_existing_file(place, working_dir, f"{what} '{name}'"), name, what)
    elif module := _module_file(place, working_dir):
        _check_defined(module, name, what)


def _existing_file(place: str, working_dir: str, subject: str) -> Path:
    path = user_file_path(place, working_dir)
    if not path.is_file():
        raise UserError(f"{subject}: there is no file {path}")
    return path


def _module_file(module: str, working_dir: str) -> Path | None:
    """Return the file of a module in `working_dir`; None where it is somewhere else."""
    stem = Path(working_dir or ".", *module.split("."))
    files = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _check_defined(path: Path, name: str, what: str) -> None:
    from tenfold.data.runtime.defined_names import defined_names

    names, attribute = defined_names(path), name.rpartition(":")[2]
    if names.every is not None and attribute not in names.every:
        choices = _choices(names, what)
        hint = f": {did_you_mean(attribute, choices)}" if choices else ""
        raise UserError(f"{what} '{name}': {path.name} has no '{attribute}'{hint}")


def _choices(names: "DefinedNames", what: str) -> tuple[str, ...]:
    """Return the names of a file that may be meant: of models its functions."""
    return names.functions if what == "model" else (*names.classes, *names.functions)


def find_model(name: str, *, working_dir: str = "") -> "ModelFunction":
    """Import the module of the model `name` and return its function.

    Raises:
      UserError: the name, the file or the function does not exist.
    """
    check_model_name(name, working_dir=working_dir)
    built_in, argument = built_in_name(name), name.partition(":")[2]
    path = _APPLICATIONS if built_in == "keras" else BUILT_IN.get(built_in, name)
    found = find_attribute(path, working_dir=working_dir, what="model")
    if not callable(found):
        raise UserError(f"model '{name}' is {type(found).__name__}, not a function")
    if built_in == "keras":
        return partial(found, application=argument)
    return partial(found, classes=int(argument)) if built_in and argument else found


def find_attribute(name: str, *, working_dir: str, what: str) -> Any:
    """Import a module of the user's and return the object that `name` refers to.

    Args:
      name: ``module:name`` or ``file.py:name``.
      working_dir: the folder that modules and relative files are looked up in.
      what: the kind of object, for error messages: ``model``, ``callback``.

    Raises:
      UserError: the module, the file or the attribute does not exist, or the module imports one
        that is not installed. Another exception that the
        user's module raises while it is imported passes through.
    """
    check_own_name(name, working_dir=working_dir, what=what)
    place, _, attribute = name.rpartition(":")
    try:
        module = import_user_module(place, what, working_dir=working_dir)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        raise UserError(
            f"{what} '{name}' imports '{missing}', which is not installed: {install_hint(missing)}"
        ) from error
    return get_user_attribute(module, attribute, f"{what} '{name}'")
