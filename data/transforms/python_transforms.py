"""Transforms given as Python objects: functions, and objects of the user's own classes.

Transforms run in other processes, which get them pickled: a function or a class must be importable
by its module and name. Each has a key that identifies it in the manifest, so that a resumed write
never mixes records of two transforms.
"""

import inspect
import pickle
import sys
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from tenfold.data.errors import UserError
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.transforms.base import (
    Outcome,
    RecordSeed,
    Transform,
    Values,
    plain_values,
    text_key,
)
from tenfold.data.transforms.user_function import UserFunction, source_text

# ``resize:32`` as on the command line, an object, or a function from features to features.
TransformLike: TypeAlias = str | Transform | Callable[..., Any]

_MEMBERS: Final = ("key", "copies", "splits", "apply")
_BUILT_IN: Final = "tenfold."


def python_transform(given: Any) -> Transform:
    """Return the transform of a function or of an object with the members of `Transform`.

    Raises:
      UserError: `given` is neither, or it cannot be sent to another process.
    """
    if isinstance(given, type):
        raise UserError(
            f"transform {given.__name__} is a class: give an object, as {given.__name__}()"
        )
    if all(hasattr(given, member) for member in _MEMBERS):
        own = type(given).__module__.startswith(_BUILT_IN)
        _check_picklable(given, type(given))
        return given if own else UserTransform(given)
    if inspect.isfunction(given):
        _check_picklable(given, given)
        return PassedFunction(given)
    missing = [member for member in _MEMBERS if not hasattr(given, member)]
    raise UserError(
        f"transform {given!r} is no function and has no {', '.join(missing)}: give a text as "
        "'resize:224', a function, or an object with key, copies, splits and apply"
    )


def _check_picklable(given: Any, definition: Any) -> None:
    """Check that another process can load `given`, whose function or class is `definition`.

    Raises:
      UserError: its definition has no importable name, or part of it cannot be pickled.
    """
    name = definition.__qualname__
    remedy = "define it with def or class at the top level of a module, and import it from there"
    if "<lambda>" in name or "<locals>" in name:
        raise UserError(
            f"transform {name} cannot be sent to other processes, because it is defined inside "
            f"an expression or a function: {remedy}"
        )
    main = sys.modules["__main__"]
    if definition.__module__ == "__main__" and not hasattr(main, "__file__"):
        raise UserError(
            f"transform {name} cannot be sent to other processes, because it is defined in an "
            f"interactive session: {remedy}"
        )
    try:
        pickle.dumps(given)
    except Exception as error:
        raise UserError(
            f"transform {name} cannot be sent to other processes "
            f"({type(error).__name__}: {error}): keep to attributes that pickle takes"
        ) from error


class PassedFunction(UserFunction):
    """A function given as an object; called as `UserFunction` calls a named one.

    Its key is the function's name and the text of the file that defines it: the same key as
    that of the text ``module:function``.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._text = f"{function.__module__}:{function.__qualname__}"
        self._function = function
        source = source_text(function, "")
        if not source:
            raise UserError(
                f"transform '{self._text}' has no source file, which would identify it in the "
                "manifest: give an object with a key"
            )
        self.key = text_key("function", self._text, source)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)  # pickle stores the function by module and name

    def _load(self) -> Any:
        return self._function


class UserTransform:
    """An object of the user's own class, with its results checked.

    Its key joins the class's name with the object's `key`, which the user must change whenever
    the object's results change.
    """

    def __init__(self, transform: Transform) -> None:
        owner = type(transform)
        self._name = f"{owner.__module__}:{owner.__qualname__}"
        self._transform = transform
        self._check_members()
        self.key = text_key("object", self._name, transform.key)
        self.copies = transform.copies
        self.splits = None if transform.splits is None else frozenset(transform.splits)

    def _check_members(self) -> None:
        given = self._transform
        if not isinstance(given.key, str) or not given.key:
            raise UserError(
                f"transform {self._name} has the key {given.key!r}: it must be a text that "
                "changes whenever the results do"
            )
        if not isinstance(given.copies, int) or given.copies < 1:
            raise UserError(
                f"transform {self._name} has {given.copies!r} copies: it must be at least 1"
            )
        if isinstance(given.splits, str):
            raise UserError(
                f"transform {self._name} has the splits {given.splits!r}: "
                "give a set of names, or None for all"
            )

    def apply(self, records: list[Values], seeds: list[RecordSeed]) -> list[Outcome]:
        """Return what the object makes of each record.

        Raises:
          UserError: the object returns anything but one `Outcome` per record.
        """
        done = list(self._transform.apply([plain_values(record) for record in records], seeds))
        if len(done) != len(records):
            raise UserError(
                f"transform {self._name} returns {len(done)} results for {len(records)} records: "
                "it must return one for each: a dict, an UnusableRecord, None or a list"
            )
        for outcome in done:
            for record in outcome if isinstance(outcome, list) else [outcome]:
                if not isinstance(record, (dict, UnusableRecord, type(None))):
                    raise UserError(
                        f"transform {self._name} returns a {type(record).__name__}: it must "
                        "return a dict, an UnusableRecord, None or a list of these for each record"
                    )
        return done
