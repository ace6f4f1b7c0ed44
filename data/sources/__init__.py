"""Sources of examples; `open_source` finds out of what kind a user's source is."""

from tenfold.data.sources.base import BadRecord, Encoded, Source, SourceChanged
from tenfold.data.sources.open_source import open_source

__all__ = ["BadRecord", "Encoded", "Source", "SourceChanged", "open_source"]
