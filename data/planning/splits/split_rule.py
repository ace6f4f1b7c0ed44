"""What the user asks of the splits. Pure."""

from dataclasses import dataclass

from tenfold.data.errors import UserError
from tenfold.data.planning.splits.split_fractions import SplitFraction, check_fractions


@dataclass(frozen=True)
class SplitRule:
    """How the examples of a source become splits.

    Attributes:
      fractions: the splits; () keeps those that the source has itself, or makes all ``train``.
      feature: the feature whose values are the splits that the source has; "" for none.
      by: the feature whose equal values stay in one split; "" for none.
      stratify: the feature whose values each split gets in equal shares; "" for none.

    Raises:
      UserError: two of them contradict each other.
    """

    fractions: tuple[SplitFraction, ...] = ()
    feature: str = ""
    by: str = ""
    stratify: str = ""

    def __post_init__(self) -> None:
        check_fractions(self.fractions, f"splits {[split.name for split in self.fractions]}")
        if self.by and self.stratify:
            raise UserError(
                f"--split_by={self.by} and --stratify={self.stratify} exclude each other: groups "
                "stay whole, so their classes cannot be divided in equal shares; choose one"
            )
        if (self.by or self.stratify) and not self.dealt:
            flag = f"--split_by={self.by}" if self.by else f"--stratify={self.stratify}"
            raise UserError(f"{flag} needs fractions, as --split=train:0.8,validation:0.2")

    @property
    def dealt(self) -> tuple[SplitFraction, ...]:
        """The splits that divide examples by fractions."""
        return tuple(split for split in self.fractions if split.fraction is not None)

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the splits to keep as the source has them."""
        return tuple(split.name for split in self.fractions if split.fraction is None)

    @property
    def features(self) -> tuple[str, ...]:
        """The features whose values `deal_splits` needs."""
        return tuple(dict.fromkeys(filter(None, (self.feature, self.by, self.stratify))))
