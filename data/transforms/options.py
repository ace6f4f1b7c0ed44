"""The options of a transform: ``resize:224x224,fit=crop``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tenfold.data.errors import UserError

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Options:
    """The options of one transform.

    Attributes:
      text: The whole text of the transform, for errors.
      positional: The value without a name; "" if there is none.
      named: The named values, as text.
    """

    text: str
    positional: str
    named: dict[str, str]

    def read(self, readers: Mapping[str, tuple[Callable[[str], Any], Any]]) -> dict[str, Any]:
        """Return the value of every option by name.

        Args:
          readers: (reader, default) of each option by name. A reader turns text into a value and
            raises ValueError for invalid text.

        Raises:
          UserError: an option is unknown, or its value is invalid.
        """
        unknown = sorted(set(self.named) - set(readers))
        if unknown:
            raise UserError(
                f"--transform={self.text}: unknown option '{unknown[0]}'; "
                f"there are: {', '.join(readers)}"
            )
        values = {}
        for name, (reader, default) in readers.items():
            try:
                values[name] = reader(self.named[name]) if name in self.named else default
            except ValueError as error:
                reason = f" ({error})" if not isinstance(error, UserError) else f": {error}"
                raise UserError(
                    f"--transform={self.text}: {name}={self.named[name]} cannot be{reason}"
                ) from error
        return values

    def expect_no_positional(self) -> None:
        """Check that all options are named.

        Raises:
          UserError: an option has no name.
        """
        if self.positional:
            raise UserError(
                f"--transform={self.text}: write '{self.positional}' as NAME=VALUE, like copies=4"
            )


def parse_options(text: str) -> Options:
    """Return the options in the text of a transform, ``name:options``.

    Raises:
      UserError: more than one option has no name.
    """
    _, _, rest = text.partition(":")
    parts = [part.strip() for part in rest.split(",") if part.strip()]
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    positional = [part for part in parts if "=" not in part]
    if len(positional) > 1:
        raise UserError(f"--transform={text}: write '{positional[1]}' as NAME=VALUE")
    return Options(text, positional[0] if positional else "", named)


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a reader of numbers from `low` to `high`."""
    return _within(low, high, float)


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from `low` to `high`."""
    return _within(low, high, int)


def _within(low: Number, high: Number, parse: Callable[[str], Number]) -> Callable[[str], Number]:
    def read(text: str) -> Number:
        value = parse(text)
        if not low <= value <= high:
            raise ValueError(f"from {low} to {high}")
        return value

    return read


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a reader that accepts only `choices`."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return read
