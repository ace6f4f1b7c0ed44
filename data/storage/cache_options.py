"""Options of the cache of shards, apart from `shard_cache`: flags and configurations hold them."""

from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import UserError

AUTO: Final = "auto"
OFF: Final = "off"
DEFAULT_CACHE_BYTES: Final = 50 * 10**9


@dataclass(frozen=True)
class CacheOptions:
    """The cache of shards from remote storage.

    Attributes:
      mode: ``auto`` caches them on the local disk, ``off`` does not.
      folder: Local folder of the cache; "" is ``$XDG_CACHE_HOME/tenfold/shards``, by default
        ``~/.cache/tenfold/shards``.
      limit_bytes: Size to which the cache is kept by evicting the least recently used shards.
    """

    mode: str = AUTO
    folder: str = ""
    limit_bytes: int = DEFAULT_CACHE_BYTES

    def __post_init__(self) -> None:
        if self.mode not in (AUTO, OFF):
            raise UserError(f"cache '{self.mode}' is neither {AUTO} nor {OFF}")
        if self.limit_bytes < 0:
            raise UserError(f"cache_size is {self.limit_bytes}: it cannot be below 0")


DEFAULT_CACHE: Final = CacheOptions()
