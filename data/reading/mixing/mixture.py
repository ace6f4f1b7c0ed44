"""The data sets that the global batches of a run are taken from: one, or a mixture.

Each gives a fixed number of records to every batch, from lanes of its own. The passes over the
first one are the epochs; the others are read on and on beside it. So the position in all of them
follows from the epoch and the step. Imports no TensorFlow.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature, Manifest
from tenfold.data.format.schema import SchemaError, merge_schemas
from tenfold.data.format.statistics.feature_statistics import SplitStatistics
from tenfold.data.format.statistics.mixed_statistics import mixed_statistics
from tenfold.data.planning.lanes import PAD
from tenfold.data.planning.mixture_shares import DataShare, apportion
from tenfold.data.reading.feeding.feed_options import LONGEST, FeedOptions
from tenfold.data.reading.feeding.input_spec import is_ragged, longest_list
from tenfold.data.reading.read_config import ReadConfig, read_config
from tenfold.data.reading.read_options import (
    DEFAULT_OPTIONS,
    SOLE_WORKER,
    Position,
    ReadOptions,
    WorkerPlace,
)

_REMEDY: Final = (
    "write them with the same columns, or name the features that both have with --inputs and "
    "--target"
)


@dataclass(frozen=True)
class Mixture:
    """What one worker reads of the data sets of a run.

    Args:
      members: how it reads each, with its part of the global batch. The first one's passes are
        the epochs.
    """

    members: tuple[ReadConfig, ...]

    @property
    def first(self) -> ReadConfig:
        """The data set whose passes are the epochs; the only one, unless there are several."""
        return self.members[0]

    @property
    def is_mixed(self) -> bool:
        """Whether there are several data sets."""
        return len(self.members) > 1

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each data set: the last part of its path where these differ, else all."""
        folders = [member.folder for member in self.members]
        names = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
        return tuple(names if len(set(names)) == len(names) else folders)

    @property
    def global_batch_size(self) -> int:
        """Records of a step, of all data sets and workers."""
        return sum(member.global_batch_size for member in self.members)

    @property
    def steps_per_epoch(self) -> int:
        """The steps of an epoch, the same on all workers."""
        return self.first.shards.steps_per_epoch

    @property
    def tail_steps(self) -> int:
        """Steps with leftover records after those of an epoch; see `WorkerShards`.

        None in a mixture, where the last step of a pass tells what it leaves over.
        """
        return 0 if self.is_mixed else self.first.shards.tail_steps

    def global_records(self, step: int) -> int:
        """Return all workers' records of a step of an epoch."""
        return self.records_between(step, step + 1)

    def records_between(self, begin: int, end: int) -> int:
        """Return all workers' records of the steps from `begin` to `end` of an epoch."""
        if self.is_mixed:
            return (end - begin) * self.global_batch_size
        return self.first.shards.records_between(begin, end)

    @property
    def epoch_records(self) -> int:
        """All workers' records of an epoch."""
        return self.records_between(0, self.steps_per_epoch)

    def is_even(self, replicas: int) -> bool:
        """Whether the parts of all workers' replicas are equal at every step."""
        return all(member.shards.is_even(replicas) for member in self.members)

    def may_be_empty(self, replicas: int) -> bool:
        """Whether a replica of some worker may get no record of a step."""
        return all(member.shards.may_be_empty(replicas) for member in self.members)

    def positions(self, position: Position) -> tuple[Position, ...]:
        """Return the position in each data set."""
        done = position.epoch * self.steps_per_epoch + position.step
        others = (divmod(done, member.shards.steps_per_epoch) for member in self.members[1:])
        return (position, *(Position(epoch, step) for epoch, step in others))

    def steps_to_pass_end(self, position: Position) -> int:
        """Return the steps up to the next end of a pass over any of the data sets."""
        pairs = zip(self.members, self.positions(position), strict=True)
        return min(member.shards.steps_per_epoch - found.step for member, found in pairs)

    def own_records(self, position: Position) -> int:
        """Return the worker's records of the step at `position`."""
        pairs = zip(self.members, self.positions(position), strict=True)
        return sum(member.shards.records(found.step) for member, found in pairs)

    def at(self, place: WorkerPlace) -> "Mixture":
        """Return what another worker reads."""
        return Mixture(tuple(replace(member, place=place) for member in self.members))

    @cached_property
    def label_counts(self) -> tuple[float, ...]:
        """The records of each class; in a mixture, the parts of a batch that they make up."""
        if not self.is_mixed:
            return self.first.manifest.split(self.first.split).label_counts
        found = []
        for member in self.members:
            counts = member.manifest.split(member.split).label_counts
            found.append([member.global_batch_size * n / max(1, sum(counts)) for n in counts])
        return tuple(map(sum, zip(*found, strict=True)))

    @property
    def statistics(self) -> SplitStatistics | None:
        """The statistics of the features over what is read; None where they are not known."""
        weighted = [
            (member.manifest.split(member.split).statistics, member.global_batch_size)
            for member in self.members
        ]
        return mixed_statistics(weighted)

    def sentence(self) -> str:
        """Return what a batch and an epoch hold, in words."""
        pairs = zip(self.names, self.members, strict=True)
        parts = [f"{member.global_batch_size:,} from '{name}'" for name, member in pairs]
        passes = [
            f"{self.steps_per_epoch / member.shards.steps_per_epoch:.2f} passes over '{name}'"
            for name, member in zip(self.names[1:], self.members[1:], strict=True)
        ]
        return (
            f"each batch of {self.global_batch_size:,} has {', '.join(parts)}; an epoch is a pass "
            f"over '{self.names[0]}' ({self.steps_per_epoch:,} steps) and {', '.join(passes)}"
        )


def open_mixture(
    data_sets: Sequence[DataShare],
    *,
    split: str,
    global_batch_size: int,
    place: WorkerPlace = SOLE_WORKER,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Mixture:
    """Return how a worker reads one data set, or a mixture; reads the manifests.

    Args:
      data_sets: the folders of shards, with their shares of each batch.
      split: name of the split of each.
      global_batch_size: records of a step, of all data sets and workers.
      place: which worker reads.
      options: how records are decoded, shuffled and fetched. The memory for shuffling is divided
        by the shares too.

    Raises:
      UserError: there are no shards, the data sets do not fit each other, or an option is not for
        mixtures.
    """
    shares = [data_set.share for data_set in data_sets]
    batches = apportion(global_batch_size, shares)
    if len(data_sets) == 1:
        alone = read_config(
            data_sets[0].folder,
            split=split,
            global_batch_size=global_batch_size,
            place=place,
            options=options,
        )
        return Mixture((alone,))
    _check_options(options)
    for data_set, batch in zip(data_sets, batches, strict=True):
        if not batch:
            raise UserError(
                f"--shards: '{data_set.folder}' has the share {data_set.share:g}, which is no "
                f"record of a batch of {global_batch_size}: raise --global_batch_size"
            )
    members = [
        read_config(
            data_set.folder,
            split=split,
            global_batch_size=batch,
            place=place,
            options=replace(
                options,
                shuffle_buffer_bytes=int(
                    options.shuffle_buffer_bytes * data_set.share / sum(shares)
                ),
            ),
        )
        for data_set, batch in zip(data_sets, batches, strict=True)
    ]
    return _with_common_features(Mixture(tuple(members)), options.feed)


def _check_options(options: ReadOptions) -> None:
    if options.remainder == PAD:
        raise UserError(
            "--remainder=pad makes the last batches of a pass smaller, and each batch of a "
            "mixture has fixed shares: take drop or repeat"
        )
    if options.balance:
        raise UserError(
            f"--balance={options.balance} is not for mixtures, whose receipts tell the passes: "
            "give classes other shares by writing them as data sets of their own"
        )


def _with_common_features(mixture: Mixture, feed: FeedOptions) -> Mixture:
    """Return the mixture with features that fit the records of all data sets.

    Raises:
      UserError: a feature that is read is missing in one of them, or differs in kind, or the
        classes have other names.
    """
    first, name = mixture.first, mixture.names[0]
    common = _read_features(feed, first.manifest)
    for other, other_name in zip(mixture.members[1:], mixture.names[1:], strict=True):
        _check_classes(first.manifest, other.manifest, name, other_name)
        found = _read_features(feed, other.manifest)
        for missing in sorted(common.keys() ^ found.keys()):
            where = other_name if missing in common else name
            raise UserError(f"--shards: '{where}' has no feature '{missing}': {_REMEDY}")
        common = {each: _merged(common[each], found[each], name, other_name) for each in common}
    longest = {
        each: max(longest_list(member.manifest, common[each]) for member in mixture.members)
        for each, length in feed.pad.items()
        if length == LONGEST and each in common and is_ragged(common[each])
    }
    feed = replace(feed, pad={**feed.pad, **longest})
    members = (
        replace(
            member,
            manifest=_with_features(member.manifest, common),
            options=replace(member.options, feed=feed),
        )
        for member in mixture.members
    )
    return Mixture(tuple(members))


def _read_features(feed: FeedOptions, manifest: Manifest) -> dict[str, Feature]:
    """Return the features of a data set that are read, by name."""
    stored = {feature.name: feature for feature in manifest.features}
    roles = feed.roles(stored)
    names = (*roles.inputs, *(roles.target or ()), roles.weight_feature)
    return {name: stored[name] for name in names if name in stored}


def _merged(first: Feature, second: Feature, name: str, other: str) -> Feature:
    """Return a feature that fits the records of both data sets.

    Raises:
      UserError: it differs in kind or in the number of dimensions.
    """
    try:
        if first.kind != second.kind:
            raise SchemaError
        (merged,) = merge_schemas((first,), (second,))
    except SchemaError:
        raise UserError(
            f"--shards: feature '{first.name}' is {first.kind} of shape {list(first.shape)} in "
            f"'{name}', and {second.kind} of shape {list(second.shape)} in '{other}': {_REMEDY}"
        ) from None
    return merged


def _with_features(manifest: Manifest, common: dict[str, Feature]) -> Manifest:
    features = tuple(common.get(feature.name, feature) for feature in manifest.features)
    return replace(manifest, features=features)


def _check_classes(first: Manifest, second: Manifest, name: str, other: str) -> None:
    """Check that labels of both data sets mean the same.

    Raises:
      UserError: a class has another name, or there are more of them.
    """
    if first.num_classes != second.num_classes:
        raise UserError(
            f"--shards: '{name}' has {first.num_classes} classes and '{other}' has "
            f"{second.num_classes}: write them with the same --classes=FILE"
        )
    pairs = zip(first.label_names, second.label_names, strict=False)
    for number, (one, another) in enumerate(pairs):
        if one != another:
            raise UserError(
                f"--shards: class {number} is '{one}' in '{name}' and '{another}' in '{other}': "
                "write them with the same --classes=FILE"
            )
