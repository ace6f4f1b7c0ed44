"""The lines that show a finished epoch. No stream is written here."""

import re
from dataclasses import dataclass, field
from typing import Final

from tenfold.launcher.display.progress.job_progress import epoch_figures
from tenfold.launcher.job.events import Epoch

# Shares of time differ a little in every epoch. A sentence has changed only if its words or its
# counts have.
_SHARE: Final = re.compile(r"\d+(?:\.\d+)? ?%")


# A sentence is shown again if this many epochs have passed without it. A run near the border
# between two limits changes its verdict in every other epoch.
MEMORY_EPOCHS: Final = 5


@dataclass
class EpochLines:
    """Makes the lines of one epoch after another; leaves out sentences that have not changed."""

    _epoch: int = 0  # a count of the calls
    _seen: dict[str, int] = field(default_factory=dict)  # when each sentence was last true

    def lines(self, epoch: Epoch) -> list[str]:
        """Return the headline, and a line for each sentence that recent epochs did not have."""
        self._epoch += 1
        changed = [text for text in epoch.sentences if self._is_new(_SHARE.sub("%", text))]
        return [headline(epoch), *(f"  {text}" for text in changed)]

    def _is_new(self, key: str) -> bool:
        before = self._seen.get(key)
        self._seen[key] = self._epoch
        return before is None or self._epoch - before > MEMORY_EPOCHS


def headline(epoch: Epoch) -> str:
    """Return ``epoch 2/5: loss 0.1234, accuracy 0.9531; 418 records/s``.

    Epochs are counted from 1, although events and metrics.jsonl count from 0.
    """
    shown = [f"{name} {value:.4g}" for name, value in epoch_figures(epoch).items()]
    head = "epoch" if epoch.epoch is None else f"epoch {epoch.epoch + 1}"
    if epoch.epochs:
        head += f"/{epoch.epochs}"
    rate = "" if epoch.records_per_s is None else f"; {epoch.records_per_s:,.0f} records/s"
    return f"{head}: {', '.join(shown)}{rate}"
