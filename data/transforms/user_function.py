"""The user's own transform: a function from a dict of features to another."""

import inspect
from typing import Any

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE
from tenfold.data.runtime.user_code import load_user_object
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.transforms.base import Draw, Pixels, Values, text_key


class UserFunction:
    """Calls ``function(features)``, or ``function(features, rng)`` with a numpy random generator
    of the record's own seed.

    An image is its encoded bytes as the source has it, or, after a transform that decodes, a
    uint8 array (height, width, channels). It is identified by the text of its file.
    """

    copies = 1
    splits: frozenset[str] | None = None

    def __init__(self, text: str) -> None:
        self._text = text
        self._function: Any = None
        self.key = text_key("function", text, _source_text(self._load(), text))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_function": None}

    def _load(self) -> Any:
        if self._function is None:
            self._function = load_user_object(self._text, "transform")
            if not callable(self._function):
                raise UserError(f"transform '{self._text}' is not a function")
        return self._function

    def apply(self, records: list[Values], draws: list[Draw]) -> list[Values | UnusableRecord]:
        """Returns what the function gives for each record; an exception makes it a bad one."""
        function = self._load()
        with_rng = _wants_rng(function)
        done: list[Values | UnusableRecord] = []
        for record, draw in zip(records, draws, strict=True):
            arguments: list[Any] = [_plain(record)]
            if with_rng:
                arguments.append(_generator(draw))
            try:
                done.append(self._checked(function(*arguments)))
            except Exception as error:  # noqa: BLE001 - whatever the user's code raises
                done.append(
                    UnusableRecord(
                        f"transform '{self._text}' raises {type(error).__name__}: {error}"
                    )
                )
        return done

    def _checked(self, result: Any) -> Values:
        if not isinstance(result, dict) or not result:
            raise TypeError(f"it must return a dict of features, not {type(result).__name__}")
        return result


def _wants_rng(function: Any) -> bool:
    try:
        return len(inspect.signature(function).parameters) > 1
    except (TypeError, ValueError):
        return False


def _plain(record: Values) -> Values:
    value = record.get(IMAGE)
    if not isinstance(value, Pixels):
        return dict(record)
    from tenfold.data.format.image_codec import image_to_array

    return {**record, IMAGE: image_to_array(value.image)}


def _generator(draw: Draw) -> Any:
    import numpy as np

    return np.random.default_rng(draw.rng("function").getrandbits(63))


def _source_text(function: Any, text: str) -> str:
    """Returns the text of the file that defines the function, or its name where there is none."""
    try:
        path = inspect.getsourcefile(function)
        if path is not None:
            with open(path, encoding="utf-8") as file:
                return file.read()
    except (TypeError, OSError):
        pass
    return text
