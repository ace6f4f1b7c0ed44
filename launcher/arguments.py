"""What a command gets besides its flags."""

from dataclasses import dataclass

from tenfold.data.errors import UserError


@dataclass(frozen=True)
class Arguments:
    """Positional arguments, and the user's own program after ``--``."""

    positional: tuple[str, ...] = ()
    program: tuple[str, ...] = ()

    def expect_none(self) -> None:
        """Checks that there are neither.

        Raises:
          UserError: there is one; the message names it.
        """
        extra = (*self.positional, *self.program)
        if extra:
            raise UserError(f"unexpected argument '{extra[0]}': flags are written --name=value")
