"""Writing a data set: from a source to shards and, last of all, their manifest."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from tenfold.data.errors import JobError, UserError, did_you_mean
from tenfold.data.format.manifest import Manifest
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.planning.splits.split_fractions import SplitFraction
from tenfold.data.planning.splits.split_names import standard_split_name
from tenfold.data.planning.splits.split_rule import SplitRule
from tenfold.data.planning.write_plan import ShardTask, WritePlan
from tenfold.data.runtime.cpus import usable_cpus
from tenfold.data.runtime.process_pool import run_pool
from tenfold.data.runtime.scratch_folder import scratch_folder
from tenfold.data.sources.base import Source, SourceOptions
from tenfold.data.sources.open_source import open_source
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.data.storage.open_folder import make_writable, open_folder
from tenfold.data.transforms.chain import Chain, parse_chain
from tenfold.data.transforms.python_transforms import TransformLike
from tenfold.data.writing.ledger import FinishedShard, check_budget, read_finished
from tenfold.data.writing.output_folder import (
    begin_output,
    claim_output,
    count_kept,
    find_finished,
    plan_keys,
)
from tenfold.data.writing.publish import publish
from tenfold.data.writing.shard_writer import WriteJob, write_shard
from tenfold.data.writing.splits.plan_source import plan_source, pools_in_files

ENGINES: Final = ("local", "beam")
CHECKS: Final = ("complete", "decode")
# What records of unchanged sources take about, by their number and by their bytes, on one core.
_RECORD_S: Final = 3e-5
_BYTE_S: Final = 2e-9
_PROCESS_S: Final = 0.1


@dataclass(frozen=True)
class Progress:
    """The progress of a write, in the records and shards that were missing when it began."""

    records: int
    total_records: int
    bytes: int
    shards: int
    total_shards: int


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """The options of a write.

    Attributes:
      policy: the layout of the shards: their sizes, and the worker counts that divide them.
      splits: each split's name and its fraction of the examples; the fractions sum to 1. A
        fraction of None keeps the source's own split of this name. Empty keeps all splits that
        the source has itself, or makes everything ``train``.
      split_feature: the feature that names each record's split; "" for none.
      split_by: the feature whose equal values stay in one split, as a patient; "" for none.
      stratify: the feature whose values every split gets in equal shares; "" for none.
      shuffle_seed: the seed of the order of the records.
      processes: the number of writing processes; 0 takes one more than there are CPU cores, and
        two per core where the output is remote.
      max_bad_records: broken records to leave out, listed in ``quarantine.jsonl``, before the
        write fails; None fails on the first.
      check: ``complete`` checks that each image is complete, ``decode`` also decodes it once, as
        training would; an image that fails is a broken record.
      resume: keep the finished shards of an interrupted write.
      overwrite: replace other shards in the output folder.
      writer_index: the number of this writer, from 0, where several machines share a write.
      num_writers: the number of writers; each writes its part of the shards.
      engine: ``local``, processes of this machine, or ``beam``, an Apache Beam pipeline.
      engine_arguments: options for Beam, as ``--runner=DirectRunner``.
      dry_run: change nothing; return only the result that a write would have.

    Raises:
      UserError: a value is out of range, or two of them contradict each other.
    """

    policy: LayoutPolicy = field(default_factory=LayoutPolicy)
    splits: Mapping[str, float | None] = field(default_factory=dict)
    split_feature: str = ""
    split_by: str = ""
    stratify: str = ""
    shuffle_seed: int = 0
    processes: int = 0
    max_bad_records: int | None = None
    check: str = "complete"
    resume: bool = True
    overwrite: bool = False
    writer_index: int = 0
    num_writers: int = 1
    engine: str = "local"
    engine_arguments: tuple[str, ...] = ()
    dry_run: bool = False

    def __post_init__(self) -> None:
        _ = self.split_rule  # checks the splits
        if self.processes < 0:
            raise UserError(f"processes is {self.processes}: it must be at least 1, or 0 for all")
        if self.max_bad_records is not None and self.max_bad_records < 0:
            raise UserError(f"max_bad_records is {self.max_bad_records}: it must be at least 0")
        if self.engine not in ENGINES:
            raise UserError(
                f"unknown engine '{self.engine}': {did_you_mean(self.engine, ENGINES)}"
            )
        if self.check not in CHECKS:
            raise UserError(f"unknown check '{self.check}': {did_you_mean(self.check, CHECKS)}")
        self._check_writers()

    def _check_writers(self) -> None:
        if not 0 <= self.writer_index < self.num_writers:
            raise UserError(
                f"writer_index {self.writer_index} of num_writers {self.num_writers}: "
                "writers are numbered from 0"
            )
        if self.overwrite and self.num_writers > 1:
            raise UserError(
                "several writers cannot overwrite, because each would remove the others' shards: "
                "empty the output folder first"
            )

    @property
    def split_rule(self) -> SplitRule:
        """How the examples become splits, checked."""
        splits = tuple(
            SplitFraction(standard_split_name(name), share) for name, share in self.splits.items()
        )
        return SplitRule(splits, self.split_feature, self.split_by, self.stratify)


@dataclass(frozen=True)
class WriteResult:
    """The result of a write, or with `dry_run` the result that it would have.

    Attributes:
      manifest: the published manifest; None after a dry run, and while other writers have shards
        left to write.
      plan: the plan of the whole write.
      written: the number of shards that this writer wrote.
      kept: the number of its shards that an earlier write had finished.
      notes: remarks of the source, as on files that it passed over.
      dry_run: whether nothing was changed.
    """

    manifest: Manifest | None
    plan: WritePlan
    written: int
    kept: int
    notes: tuple[str, ...] = ()
    dry_run: bool = False


def write_shards(
    source: Any,
    output: str | os.PathLike[str],
    *,
    options: WriteOptions | None = None,
    transforms: Sequence[TransformLike] = (),
    source_options: SourceOptions | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_plan: Callable[[WritePlan], None] = lambda plan: None,
    policy: LayoutPolicy | None = None,
    splits: Sequence[SplitFraction] | None = None,
    shuffle_seed: int | None = None,
) -> WriteResult:
    """Write `source` as shards and a manifest into the folder `output`.

    Equal arguments write equal bytes, whatever the number of processes. A write that was
    interrupted resumes; a finished write is not repeated.

    Args:
      source: a path, a URL, ``tfds:NAME`` or ``module:function``, as for ``--source``; or a
        `tf.data.Dataset`, or an iterable of dicts of features; or a dict of one of these for each
        split.
      output: the path or URL of the folder for the shards.
      options: the layout, the splits and the way of writing.
      transforms: the steps that each record takes, in order: a text as for ``--transform``
        (``"resize:224"``), a function from a dict of features to another, or an object with the
        members of `Transform`. Functions and classes must be defined at the top level of a
        module, because other processes import them.
      source_options: the names of features, and other properties of the source.
      on_progress: called after every block of records that is written.
      on_plan: called with the plan before anything is written.
      policy: shorthand for `options.policy`.
      splits: shorthand for `options.splits`.
      shuffle_seed: shorthand for `options.shuffle_seed`.

    Returns:
      The manifest, and the numbers of shards written and kept.

    Raises:
      UserError: the source, the output or a transform cannot be used, or the output holds other
        data.
      JobError: a record is broken, the source has changed meanwhile, or the storage refused.
    """
    options = _with_shorthands(options or WriteOptions(), policy, splits, shuffle_seed)
    chain = parse_chain(transforms)
    if chain.takes_any_image:
        source_options = replace(source_options or SourceOptions(), any_image=True)
    folder = open_folder(os.fspath(output))
    if not isinstance(folder, LocalFolder) and not options.dry_run:
        make_writable(folder)  # a refusal comes before the scan of the source, which may be long
    with scratch_folder() as scratch:
        opened = open_source(source, scratch, source_options)
        plan = plan_source(
            opened,
            options.policy,
            options.split_rule,
            chain=chain,
            shuffle_seed=options.shuffle_seed,
            label_feature=source_options.label if source_options else "",
        )
        on_plan(plan)
        if options.dry_run:
            return _dry_run(opened, plan, chain, folder, options)
        make_writable(folder)
        decode = options.check == "decode"
        # Beam's workers do not see this machine's files: they get the pools themselves.
        shared = plan if options.engine == "beam" else pools_in_files(plan, scratch)
        job = WriteJob(opened, shared, folder.path, chain, options.max_bad_records, decode)
        with claim_output(folder, num_writers=options.num_writers):
            return _write(job, (source, source_options), folder, options, on_progress)


def _with_shorthands(
    options: WriteOptions,
    policy: LayoutPolicy | None,
    splits: Sequence[SplitFraction] | None,
    shuffle_seed: int | None,
) -> WriteOptions:
    if policy is not None:
        options = replace(options, policy=policy)
    if splits is not None:
        options = replace(options, splits={split.name: split.fraction for split in splits})
    if shuffle_seed is not None:
        options = replace(options, shuffle_seed=shuffle_seed)
    return options


def _transform_key(chain: Chain, options: WriteOptions) -> str:
    """Return the key of the transforms and of the check, which decides what is left out."""
    return chain.key + ("; check decode" if options.check == "decode" else "")


def _dry_run(
    source: Source, plan: WritePlan, chain: Chain, folder: Folder, options: WriteOptions
) -> WriteResult:
    keys = plan_keys(source.stats, plan, transform_key=_transform_key(chain, options))
    own = plan.tasks[options.writer_index :: options.num_writers]
    kept = count_kept(folder, keys, own, resume=options.resume, overwrite=options.overwrite)
    return WriteResult(None, plan, len(own) - kept, kept, source.notes, dry_run=True)


def _write(
    job: WriteJob,
    spec: tuple[Any, SourceOptions | None],
    folder: Folder,
    options: WriteOptions,
    on_progress: Callable[[Progress], None],
) -> WriteResult:
    source, plan = job.source, job.plan
    keys = plan_keys(source.stats, plan, transform_key=_transform_key(job.chain, options))
    manifest = find_finished(folder, keys, overwrite=options.overwrite)
    if manifest is not None:
        return WriteResult(manifest, plan, 0, len(plan.tasks), source.notes)
    own = plan.tasks[options.writer_index :: options.num_writers]
    begin_output(
        folder,
        keys,
        plan.tasks,
        own,
        resume=options.resume,
        overwrite=options.overwrite,
        num_writers=options.num_writers,
    )
    finished = read_finished(folder, [task.name for task in own], keys)
    missing = [task for task in own if task.name not in finished]
    job = replace(job, keys=keys.digest, versions=_versions(folder, missing))
    if options.engine == "beam":
        from tenfold.data.writing.beam import SourceSpec, write_with_beam

        source_spec = SourceSpec(*spec, source.stats.fingerprint)
        write_with_beam(job, source_spec, missing, options.engine_arguments)
    else:
        processes = options.processes or _useful_processes(job, missing, folder)
        _write_missing(job, missing, finished, processes, on_progress)
    manifest = publish(
        folder, source.stats, plan, keys, options.max_bad_records, (*source.notes, *plan.notes)
    )
    if manifest is None and options.num_writers == 1:
        raise JobError(
            f"output '{folder.path}': shards of this write have been removed meanwhile: "
            "run it again"
        )
    notes = source.notes
    if manifest:  # whose notes begin with those of the source, shortened
        notes += manifest.notes[len(notes) :]
    return WriteResult(manifest, plan, len(missing), len(own) - len(missing), notes)


def _useful_processes(job: WriteJob, tasks: Sequence[ShardTask], folder: Folder) -> int:
    """Return the number of processes that write `tasks` soonest.

    Starting one, and importing what talks to it, takes about as long as _PROCESS_S of work.
    """
    most = default_processes(folder)
    if job.chain.steps or job.decode_images or not isinstance(folder, LocalFolder):
        return most
    stats = job.source.stats
    records = sum(job.plan.expected_records(task) for task in tasks)
    num_bytes = records * stats.total_bytes / max(1, stats.num_examples)
    seconds = records * _RECORD_S + num_bytes * _BYTE_S
    return min(most, 1 + int(seconds / _PROCESS_S))


def default_processes(folder: Folder) -> int:
    """Return one process more than cores, as one waits for the disk to sync a shard.

    Of remote storage two per core, as half of them wait for uploads.
    """
    return usable_cpus() + 1 if isinstance(folder, LocalFolder) else 2 * usable_cpus()


def _versions(folder: Folder, tasks: Sequence[ShardTask]) -> dict[str, str]:
    """Return the versions of those shards of `tasks` that the folder holds already."""
    present = folder.entries()
    return {task.name: present[task.name].version for task in tasks if task.name in present}


def _write_missing(
    job: WriteJob,
    missing: Sequence[ShardTask],
    finished: dict[str, FinishedShard],
    processes: int,
    on_progress: Callable[[Progress], None],
) -> None:
    """Write the shards `missing` and add them to `finished`."""
    # Transforms may choose records: what a shard holds is known once it is finished.
    expected = {task.name: job.plan.expected_records(task) for task in missing}
    total = sum(expected.values())
    records = num_bytes = shards = 0

    def report(added: tuple[int, int] = (0, 0)) -> None:
        nonlocal records, num_bytes
        records += added[0]
        num_bytes += added[1]
        on_progress(Progress(records, total, num_bytes, shards, len(missing)))

    report()
    results = run_pool(partial(_write_one, job), missing, processes=processes, on_note=report)
    with closing(results):
        for task, shard in results:
            finished[task.name] = shard
            shards += 1
            total += shard.info.records + len(shard.quarantined) - expected[task.name]
            check_budget(finished.values(), job.max_bad_records)
            report()


def _write_one(
    job: WriteJob, task: ShardTask, note: Callable[[tuple[int, int]], None]
) -> FinishedShard:
    return write_shard(job, task, lambda records, num_bytes: note((records, num_bytes)))
