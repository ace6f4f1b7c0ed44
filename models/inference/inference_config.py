"""The configuration of `tenfold evaluate` and `tenfold predict`, passed to every worker as JSON.

Free of TensorFlow and numpy: `--help` imports it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.format.manifest import IMAGE, Manifest
from tenfold.data.reading.decoding.decoders import AUTO, check_decoder
from tenfold.data.reading.feeding.feed_options import FeedOptions
from tenfold.data.storage.cache_options import DEFAULT_CACHE, CacheOptions

EVALUATE: Final = "evaluate"
PREDICT: Final = "predict"
PARQUET: Final = "parquet"
TFRECORD: Final = "tfrecord"
OUTPUT_FORMATS: Final = (PARQUET, TFRECORD)

# Columns of predictions beside the features that are kept. A model with several outputs has a
# column of each output's name in place of PREDICTION.
SHARD_COLUMN: Final = "shard"
INDEX_COLUMN: Final = "index"
PREDICTION: Final = "prediction"
OWN_COLUMNS: Final = (SHARD_COLUMN, INDEX_COLUMN, PREDICTION)


@dataclass(frozen=True)
class InferenceConfig:
    """Configuration of an evaluation or a prediction; the same on every worker.

    Attributes:
      task: EVALUATE or PREDICT.
      model: a run directory, or a ``.keras`` file; an absolute path or a URL.
      shards: the folder or URL that holds the manifest.
      split: the name of the split.
      global_batch_size: records per step, of all workers together.
      loss: name of the loss in place of the model's own; empty for the model's own.
      metrics: names of metrics in place of the model's own: those of Keras, or
        ``module:name``; empty for the model's own.
      output: the folder or URL of the predictions.
      output_format: one of OUTPUT_FORMATS.
      keep: features that predictions keep, by name, each with the name of its column.
      follow: evaluate each new checkpoint of the run directory `model`, until its training ends.
      image_size: (height, width); None takes the size of the model's input.
      decoder: one of DECODERS or AUTO.
      feed: see `TrainConfig`; None takes that of the run, if the model is of a run.
      map: the same.
      cache, cache_dir, cache_bytes: see `data.storage.cache_options.CacheOptions`.
      working_dir: the user's current folder, where modules are looked up.
    """

    task: str
    model: str
    shards: str
    split: str
    global_batch_size: int = 256
    loss: str = ""
    metrics: tuple[str, ...] = ()
    output: str = ""
    output_format: str = PARQUET
    keep: dict[str, str] | None = None
    follow: bool = False
    image_size: tuple[int, int] | None = None
    decoder: str = AUTO
    feed: FeedOptions | None = None
    map: str | None = None
    cache: str = DEFAULT_CACHE.mode
    cache_dir: str = DEFAULT_CACHE.folder
    cache_bytes: int = DEFAULT_CACHE.limit_bytes
    working_dir: str = ""

    def __post_init__(self) -> None:
        if self.global_batch_size < 1:
            raise UserError(
                f"global_batch_size is {self.global_batch_size}: it must be at least 1"
            )
        check_decoder(self.decoder)
        self.cache_options()

    def cache_options(self) -> CacheOptions:
        """Return how shards on remote storage are cached on local disk."""
        return CacheOptions(self.cache, self.cache_dir, self.cache_bytes)

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        return json.dumps(asdict(self))


def check_kept(columns: Mapping[str, str], manifest: Manifest) -> None:
    """Check that predictions can keep features.

    Args:
      columns: the features to keep, each with the name of its column.
      manifest: the manifest of the shards.

    Raises:
      UserError: there is no such feature, it is an image, or its column is one of ours.
    """
    kinds = {feature.name: feature.kind for feature in manifest.features}
    for name, column in columns.items():
        if name not in kinds:
            raise UserError(f"--keep={name}: these shards have {', '.join(kinds)}")
        if kinds[name] == IMAGE:
            raise UserError(f"--keep={name}: it is an image; only numbers and bytes are kept")
        if column in OWN_COLUMNS:
            raise UserError(
                f"--keep={name}: the predictions have a column '{column}' already: give the "
                f"feature another one, as --keep={name}:own_{column}"
            )


def inference_config_from_json(text: str) -> InferenceConfig:
    """Return the configuration that `InferenceConfig.to_json` gave.

    Raises:
      UserError: a field is missing, unknown, of another type or out of range.
    """
    try:
        return from_json_fields(InferenceConfig, json.loads(text))
    except ValueError as error:
        raise UserError(f"inference configuration: {error}") from error
