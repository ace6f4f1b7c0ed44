"""What an evaluation or a prediction reads: as the training of the model read it."""

from tenfold.data.format.manifest import Manifest
from tenfold.data.reading.feeding.feed import MapFunction, load_map
from tenfold.data.reading.feeding.feed_options import DEFAULT_FEED, FeedOptions
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_options import SOLE_WORKER, ReadOptions, WorkerPlace
from tenfold.data.storage.open_folder import open_folder
from tenfold.models.inference.inference_config import PREDICT, InferenceConfig
from tenfold.models.inference.load_model import ModelFile


def inference_reading(
    config: InferenceConfig,
    manifest: Manifest,
    file: ModelFile,
    *,
    image_size: tuple[int, int] | None,
    place: WorkerPlace = SOLE_WORKER,
    global_batch_size: int = 0,
    also: tuple[str, ...] = (),
) -> ReadConfig:
    """Return what a worker reads.

    A prediction needs no targets, so the shards may lack them.

    Args:
      config: the configuration.
      manifest: the manifest of the shards.
      file: the model's file; what `config` leaves open is as in its training.
      image_size: (height, width) of the model's images, where `config` has none.
      place: which worker reads.
      global_batch_size: records of a step; 0 takes that of `config`.
      also: features that are read beside those that the model is fed.
    """
    feed, function = _feed(config, file)
    if config.task == PREDICT and function is None:
        feed = feed.inputs_only([feature.name for feature in manifest.features])
    return ReadConfig(
        folder=open_folder(config.shards).path,
        manifest=manifest,
        split=config.split,
        global_batch_size=global_batch_size or config.global_batch_size,
        place=place,
        options=ReadOptions(
            image_size=config.image_size or image_size,
            decoder=config.decoder,
            feed=feed,
            map=function or "",
            cache=config.cache_options(),
        ),
        also=also,
    )


def _feed(config: InferenceConfig, file: ModelFile) -> tuple[FeedOptions, MapFunction | None]:
    feed, function = config.feed, load_map(config.map or "", working_dir=config.working_dir)
    if file.train is not None:
        feed = feed or file.train.feed
        if config.map is None:
            function = load_map(file.train.map, working_dir=file.train.working_dir)
    return feed or DEFAULT_FEED, function
