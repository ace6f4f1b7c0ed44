"""Values that say how to read shards: options, the worker's place, the position in the run.

Imports neither TensorFlow nor numpy, so that planning and the command line can build them.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tenfold.data.errors import UserError
from tenfold.data.planning.cluster_task import ClusterTask, find_task, read_tf_config
from tenfold.data.planning.lanes import DROP, check_remainder
from tenfold.data.reading.decoding.augment_options import parse_augment
from tenfold.data.reading.decoding.decoders import AUTO, DecoderFactory, check_decoder
from tenfold.data.reading.feeding.feed_options import DEFAULT_FEED, FeedOptions
from tenfold.data.runtime.user_code import names_user_object
from tenfold.data.storage.cache_options import DEFAULT_CACHE, CacheOptions

if TYPE_CHECKING:
    import tensorflow as tf

IMAGE_DTYPES: Final = ("float32", "uint8")


@dataclass(frozen=True)
class ReadOptions:
    """How records are decoded, shuffled and fetched.

    Evaluation ignores `augment`, `seed`, `shuffle_buffer_bytes`, `remainder`, `bucket` and
    `balance`, so one value can serve training and evaluation.

    Args:
      image_size: (height, width) in pixels that images are resized to. None takes the size of
        the images where all have the same, else 224 × 224.
      image_dtype: ``float32`` or ``uint8``; values are 0 to 255 either way.
      augment: random changes to training images: ``flip``, ``crop`` (at least half of each
        side), ``crop:0.3`` (at least 0.3 of each side) or ``flip,crop``.
      decoder: ``auto`` (the fastest installed), ``tf``, ``turbo``, ``turbo_scaled``,
        ``module:name``, ``file.py:name``, or a function from (height, width, channels) to a
        decoder.
      seed: seed of the order of records and of the augmentation.
      shuffle_buffer_bytes: memory of the shuffle buffers of all workers together.
      threads: batches decoded in parallel; 0 takes one per usable core.
      cache: whether, where and how large shards of remote storage are cached.
      remainder: what becomes of the records that are too few for a whole batch at the end of an
        epoch: ``drop``, ``pad`` (a smaller batch) or ``repeat`` (a batch with records of the
        epoch's beginning).
      bucket: a list or a text, by whose length the records of 32 steps are dealt to these, so that
        a batch holds similar lengths; "" for none.
      balance: ``label``: records of rare classes are read several times an epoch, those of others
        not in every epoch, so that all classes are equally frequent; "" for none.
      feed: which features are inputs, targets and weights, and how lists, masks and boxes are
        read.
      map: a function from a dict of a batch's features to what the model is fed, x, (x, y) or
        (x, y, weight), or its name, ``module:function`` or ``file.py:function``; it takes the
        place of inputs, targets and weights. It runs in the tf.data graph. A second argument, if
        it takes one, is the seeds of the records, int64 [n, 2], for `tf.random.stateless_…`; they
        follow from (seed, epoch, record). A third is the index of a partner of each record in the
        batch, int64 [n], from the same lane, for MixUp and the like; the same on any number of
        workers. In evaluation both are None.

    Raises:
      UserError: a value is out of range, or there is no such decoder or function.
    """

    image_size: tuple[int, int] | None = None
    image_dtype: str = "float32"
    augment: str = ""
    decoder: str | DecoderFactory = AUTO
    seed: int = 0
    shuffle_buffer_bytes: int = 256 * 10**6
    threads: int = 0
    cache: CacheOptions = DEFAULT_CACHE
    remainder: str = DROP
    bucket: str = ""
    balance: str = ""
    feed: FeedOptions = DEFAULT_FEED
    map: str | Callable[..., Any] = ""

    def __post_init__(self) -> None:
        size = self.image_size
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise UserError(f"image_size is {size}: give (height, width), both at least 1")
        if self.image_dtype not in IMAGE_DTYPES:
            raise UserError(f"image_dtype '{self.image_dtype}' is neither float32 nor uint8")
        for name in ("shuffle_buffer_bytes", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}: it cannot be below 0")
        check_remainder(self.remainder, self.balance)
        parse_augment(self.augment)
        check_decoder(self.decoder)
        if isinstance(self.map, str) and self.map and not names_user_object(self.map):
            raise UserError(f"map '{self.map}': write module:function or file.py:function")


DEFAULT_OPTIONS: Final = ReadOptions()


@dataclass(frozen=True)
class Position:
    """How far a run has come: `step` steps of epoch `epoch` are done, both counted from 0."""

    epoch: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        if min(self.epoch, self.step) < 0:
            raise UserError(
                f"position: epoch {self.epoch}, step {self.step}: neither can be below 0"
            )


BEGINNING: Final = Position()


@dataclass(frozen=True)
class WorkerPlace:
    """Which of the workers a process is, and how many replicas it feeds.

    Args:
      index: the worker's index, from 0.
      num_workers: workers that share the records.
      replicas: replicas (devices) of this worker; each gets its part of the batch in turn.

    Raises:
      UserError: the index is not below the number of workers, or a number is below 1.
    """

    index: int = 0
    num_workers: int = 1
    replicas: int = 1

    def __post_init__(self) -> None:
        if min(self.num_workers, self.replicas) < 1:
            raise UserError(
                f"{self.num_workers} workers × {self.replicas} replicas: both must be at least 1"
            )
        if not 0 <= self.index < self.num_workers:
            raise UserError(f"worker index {self.index} is not below {self.num_workers} workers")

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the files that all workers share."""
        return self.index == 0

    @classmethod
    def from_context(cls, context: "tf.distribute.InputContext") -> "WorkerPlace":
        """Return the place that a strategy's ``distribute_datasets_from_function`` passes."""
        workers = context.num_input_pipelines
        return cls(context.input_pipeline_id, workers, context.num_replicas_in_sync // workers)

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, *, replicas: int = 1
    ) -> "WorkerPlace":
        """Return the place that the launcher of this process gives; else the only worker.

        Knows `tenfold launch`, TF_CONFIG, mpirun, Slurm steps, Vertex AI, SageMaker and, with
        TENFOLD_NUM_WORKERS, Kubernetes' Indexed Jobs; docs/reading.md has the variables.

        Args:
          environ: the environment variables.
          replicas: replicas (devices) of this worker.

        Raises:
          UserError: variables contradict each other, or the task is an evaluator or a parameter
            server, which do not share the workers' records.
        """
        return cls._of(find_task(environ), replicas)

    @classmethod
    def from_tf_config(
        cls, environ: Mapping[str, str] = os.environ, *, replicas: int = 1
    ) -> "WorkerPlace":
        """Return the place that TF_CONFIG alone gives; the only worker where it is not set.

        A chief comes first, then the workers in their order, as TensorFlow numbers them.

        Raises:
          UserError: TF_CONFIG is not valid, or the task is an evaluator or a parameter server,
            which do not share the workers' records.
        """
        return cls._of(read_tf_config(environ), replicas)

    @classmethod
    def _of(cls, task: ClusterTask | None, replicas: int) -> "WorkerPlace":
        return cls(task.index, task.num_workers, replicas) if task else cls(replicas=replicas)


SOLE_WORKER: Final = WorkerPlace()
