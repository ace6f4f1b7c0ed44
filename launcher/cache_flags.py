"""The flags of the local cache of shards that lie on remote storage."""

from typing import Final

from absl import flags

from tenfold.data.cache import AUTO, DEFAULT_BYTES, OFF, CacheOptions
from tenfold.launcher.flags import FlagValues, define_size

MODES: Final = (AUTO, OFF)


def define_cache_flags(fv: FlagValues) -> None:
    """Defines the flags of the cache."""
    flags.DEFINE_enum(
        "cache", AUTO, MODES,
        "shards on gs:// (and other URLs) are brought to a local cache ahead of their use; off: "
        "TensorFlow streams them from gs://", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_string(
        "cache_dir", "", "folder of the cache on each host, shared by its workers (default: "
        "$XDG_CACHE_HOME/tenfold/shards, else ~/.cache/tenfold/shards)", flag_values=fv,
    )  # fmt: skip
    define_size(
        fv, "cache_size", DEFAULT_BYTES, "how much the cache may hold; least recently used go"
    )


def cache_options(fv: FlagValues) -> CacheOptions:
    """Returns what the flags say."""
    return CacheOptions(fv.cache, fv.cache_dir, fv.cache_size)
