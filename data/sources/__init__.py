"""Sources of examples; `open_source` finds out of what kind a user's source is."""

from tenfold.data.sources.base import Encoded, Source, SourceChanged, UnusableRecord
from tenfold.data.sources.open_source import open_source

__all__ = ["Encoded", "Source", "SourceChanged", "UnusableRecord", "open_source"]
