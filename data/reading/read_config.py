"""What one worker reads of a split, and how: the configuration of its pipelines.

Imports no TensorFlow; `batches` builds the pipelines.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from tenfold.data.format.manifest import Manifest
from tenfold.data.planning.class_balance import Balance, find_balance
from tenfold.data.planning.lanes import PAD, WorkerShards, assign_lanes
from tenfold.data.reading.decoding.augment_options import (
    NO_AUGMENT,
    AugmentOptions,
    parse_augment,
)
from tenfold.data.reading.feeding.input_spec import InputSpec, input_spec
from tenfold.data.reading.read_options import (
    DEFAULT_OPTIONS,
    SOLE_WORKER,
    ReadOptions,
    WorkerPlace,
)
from tenfold.data.runtime.cpus import usable_cpus
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest


@dataclass(frozen=True)
class ReadConfig:
    """What a worker reads of the shards in `folder`, and how.

    Args:
      folder: folder or URL of the shards.
      manifest: their manifest.
      split: name of the split.
      global_batch_size: records of a step over all workers.
      place: which worker reads.
      options: how records are decoded, shuffled and fetched.
      moved: path by name of the shards that lie outside `folder`.
      also: features that are read beside those that the model is fed.
    """

    folder: str
    manifest: Manifest
    split: str
    global_batch_size: int
    place: WorkerPlace = SOLE_WORKER
    options: ReadOptions = DEFAULT_OPTIONS
    moved: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    @cached_property
    def spec(self) -> InputSpec:
        """The inputs that the records give."""
        options = self.options
        return input_spec(self.manifest, options.image_size, options.feed, also=self.also)

    @property
    def augment(self) -> AugmentOptions:
        """Random changes to training images; none where records have no image."""
        if self.spec.image_shape is None:
            return NO_AUGMENT
        return parse_augment(self.options.augment)

    @property
    def mean_batch(self) -> float:
        """Records that one replica gets in a step, as the mean over all replicas."""
        return self.global_batch_size / (self.place.num_workers * self.place.replicas)

    @property
    def evaluation_batch(self) -> int:
        """Records of a replica's batch in evaluation, padding included."""
        return math.ceil(self.mean_batch)

    @cached_property
    def evaluation_steps(self) -> int:
        """Steps of an evaluation, in which every worker reaches its last record."""
        per_step = self.evaluation_batch * self.place.replicas
        workers = self._assign(PAD)
        return max(-(-worker.num_records // per_step) for worker in workers)

    @property
    def parallel_batches(self) -> int:
        """Batches that are decoded in parallel."""
        return self.options.threads or available_threads()

    @cached_property
    def shards(self) -> WorkerShards:
        """The worker's lanes and the steps of a training epoch.

        Raises:
          UserError: there are more workers than lanes, or too few records for one batch.
        """
        shards = self._assign(self.options.remainder)[self.place.index]
        # Lanes begin again until an epoch is full, so that no records are left over.
        return shards if self.balance is None else replace(shards, short_steps=())

    @cached_property
    def balance(self) -> Balance | None:
        """How often records are read in training; None for once.

        Raises:
          UserError: the classes that the options name are not known.
        """
        name = self.options.balance
        return find_balance(self.manifest, self.split, name) if name else None

    @cached_property
    def evaluation_shards(self) -> WorkerShards:
        """The worker's lanes, of which evaluation reads every record once."""
        return self._assign(PAD)[self.place.index]

    def _assign(self, remainder: str) -> tuple[WorkerShards, ...]:
        return assign_lanes(
            self.manifest,
            self.split,
            num_workers=self.place.num_workers,
            global_batch_size=self.global_batch_size,
            remainder=remainder,
        )

    def path_of(self, shard: str) -> str:
        """Return the path of the shard named `shard`."""
        return self.moved.get(shard) or f"{self.folder}/{shard}"


def read_config(
    shards: str,
    *,
    split: str,
    global_batch_size: int,
    place: WorkerPlace = SOLE_WORKER,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> ReadConfig:
    """Return how to read a split of the shards in folder `shards`; reads the manifest.

    Raises:
      UserError: there are no shards, or the batch size does not fit the workers.
    """
    return ReadConfig(
        folder=open_folder(shards).path,
        manifest=read_manifest(shards),
        split=split,
        global_batch_size=global_batch_size,
        place=place,
        options=options,
    )


def available_threads() -> int:
    """Return the threads that this process should decode with.

    TF_NUM_INTRAOP_THREADS where it is set, because the local back end sets it to the worker's
    share of the machine; else the usable cores.
    """
    share = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return int(share) if share.isdecimal() and int(share) > 0 else usable_cpus()
