"""The user's own transform: a function from one dict of features to another."""

import inspect
from collections.abc import Iterator
from typing import Any

from tenfold.data.errors import UserError
from tenfold.data.runtime.user_code import load_user_object
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.transforms.base import Outcome, RecordSeed, Values, plain_values, text_key


class UserFunction:
    """Calls ``function(features)`` or ``function(features, rng)`` for each record.

    The function returns a dict of features; None to leave the record out; or a list, or an
    iterator, of dicts to make several records of one.

    `rng` is a numpy random generator with the record's own seed. The feature ``image`` is
    encoded bytes as the source has it, or, after a transform that decodes, a uint8 array
    (height, width, channels). The source text of the function's file is its key.
    """

    copies = 1
    splits: frozenset[str] | None = None

    def __init__(self, text: str) -> None:
        self._text = text
        self._function: Any = None
        self.key = text_key("function", text, source_text(self._load(), text))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_function": None}

    def _load(self) -> Any:
        if self._function is None:
            self._function = load_user_object(self._text, "transform")
            if not callable(self._function):
                raise UserError(f"transform '{self._text}' is not a function")
        return self._function

    def apply(self, records: list[Values], seeds: list[RecordSeed]) -> list[Outcome]:
        """Return the function's results; an exception makes the record an UnusableRecord."""
        function = self._load()
        with_rng = _takes_rng(function)
        results: list[Outcome] = []
        for record, seed in zip(records, seeds, strict=True):
            arguments: list[Any] = [plain_values(record)]
            if with_rng:
                arguments.append(_numpy_rng(seed))
            try:
                results.append(_checked(function(*arguments)))
            except Exception as error:  # noqa: BLE001 - user code may raise anything
                reason = f"transform '{self._text}' raises {type(error).__name__}: {error}"
                results.append(UnusableRecord(reason))
        return results


def _checked(result: Any) -> Outcome:
    """Return a user's result, an iterator as a list.

    Raises:
      TypeError: it is, or has, anything but dicts of features and None.
    """
    if isinstance(result, (list, tuple, Iterator)):
        return [None if item is None else _checked_record(item) for item in result]
    return None if result is None else _checked_record(result)


def _checked_record(result: Any) -> Values:
    if not isinstance(result, dict) or not result:
        raise TypeError(
            "it must return a dict of features, a list of them, or None to leave the record out, "
            f"not {type(result).__name__}"
        )
    return result


def _takes_rng(function: Any) -> bool:
    try:
        return len(inspect.signature(function).parameters) > 1
    except (TypeError, ValueError):
        return False


def _numpy_rng(seed: RecordSeed) -> Any:
    import numpy as np

    return np.random.default_rng(seed.rng("function").getrandbits(63))


def source_text(function: Any, text: str) -> str:
    """Return the text of the file that defines `function`, or `text` if there is no file."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
        if path is not None:
            with open(path, encoding="utf-8") as file:
                return file.read()
    except (TypeError, OSError):
        pass
    return text
