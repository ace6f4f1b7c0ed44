"""From a source to shards and their manifest; the manifest comes last."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import Manifest
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.planning.plan_layout import SplitFraction
from tenfold.data.planning.write_plan import ShardTask, WritePlan, plan_write
from tenfold.data.runtime.process_pool import run_pool, usable_processors
from tenfold.data.sources.base import Source, SourceOptions
from tenfold.data.sources.open_source import open_source
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.data.storage.open_folder import make_writable, open_folder
from tenfold.data.transforms.chain import Chain, parse_chain
from tenfold.data.transforms.estimate import estimate_sizes
from tenfold.data.writing.beam import SourceSpec, write_with_beam
from tenfold.data.writing.ledger import FinishedShard, check_budget, read_receipts
from tenfold.data.writing.output_folder import begin_output, count_kept, find_finished, plan_keys
from tenfold.data.writing.publish import publish
from tenfold.data.writing.shard_writer import WriteJob, write_shard

TRAIN_ONLY: Final = (SplitFraction("train", 1.0),)


ENGINES: Final = ("local", "beam")


@dataclass(frozen=True)
class Progress:
    """How far a write is: of the records and shards that were missing when it began."""

    records: int
    total_records: int
    bytes: int
    shards: int
    total_shards: int


@dataclass(frozen=True)
class WriteOptions:
    """How to write.

    `processes` 0 takes one per processor of this machine, two where the output is remote.
    `max_bad_records` None fails on the first broken record; a number leaves as many out. With
    `num_tasks` writers each writes its part of the shards, told by its `task_index`. `engine` is
    ``local``, processes of this machine, or ``beam``, an Apache Beam pipeline with
    `engine_arguments`. A `dry_run` changes nothing: it only says what a write would do.
    """

    processes: int = 0
    resume: bool = True
    overwrite: bool = False
    max_bad_records: int | None = None
    task_index: int = 0
    num_tasks: int = 1
    engine: str = "local"
    engine_arguments: tuple[str, ...] = ()
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.processes < 0:
            raise UserError(f"processes is {self.processes}: it must be at least 1, or 0 for all")
        if self.engine not in ENGINES:
            raise UserError(f"engine '{self.engine}': there are {', '.join(ENGINES)}")
        if not 0 <= self.task_index < self.num_tasks:
            raise UserError(
                f"task_index {self.task_index} of num_tasks {self.num_tasks}: "
                "tasks are numbered from 0"
            )
        if self.overwrite and self.num_tasks > 1:
            raise UserError(
                "tasks of a processes cannot --overwrite: empty the output folder first"
            )


@dataclass(frozen=True)
class WriteResult:
    """What a write did, or would: `written` shards now, `kept` ones of before.

    `manifest` is None after a dry run, and while other tasks of a processes have shards to write.
    """

    manifest: Manifest | None
    plan: WritePlan
    written: int
    kept: int
    notes: tuple[str, ...] = ()
    dry_run: bool = False


def write_shards(
    source: Any,
    output: str,
    *,
    source_options: SourceOptions | None = None,
    policy: LayoutPolicy | None = None,
    splits: Sequence[SplitFraction] = TRAIN_ONLY,
    transforms: Sequence[str] = (),
    shuffle_seed: int = 0,
    options: WriteOptions | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_plan: Callable[[WritePlan], None] = lambda plan: None,
) -> WriteResult:
    """Writes `source` as shards into the folder `output`; equal arguments give equal bytes.

    `source` is what --source takes, or a `tf.data.Dataset`, or an iterable of dicts of features;
    `transforms` are texts as --transform takes them.
    A write that was stopped goes on where it was; one that is finished is not done again.

    Raises:
      UserError: the source or output cannot be used, or the output holds something else.
      JobError: a record is broken, the source changed meanwhile, or the storage refused.
    """
    options = options or WriteOptions()
    chain = parse_chain(transforms)
    folder = open_folder(output)
    if not isinstance(folder, LocalFolder) and not options.dry_run:
        make_writable(folder)  # whoever may not write there need not wait to hear it
    with tempfile.TemporaryDirectory(prefix="tenfold-") as scratch:
        opened = open_source(source, Path(scratch), source_options)
        plan = plan_write(
            opened.stats.num_examples,
            policy or LayoutPolicy(),
            splits,
            shuffle_seed=shuffle_seed,
            estimates=estimate_sizes(opened, chain, splits, seed=shuffle_seed),
        )
        on_plan(plan)
        if options.dry_run:
            return _foresee(opened, plan, chain, folder, options)
        make_writable(folder)
        job = WriteJob(opened, plan, folder.path, chain, options.max_bad_records)
        spec = SourceSpec(source, source_options, opened.stats.fingerprint)
        return _write(job, spec, folder, options, on_progress)


def _foresee(
    source: Source, plan: WritePlan, chain: Chain, folder: Folder, options: WriteOptions
) -> WriteResult:
    """Returns what a write would do."""
    keys = plan_keys(source.stats, plan, transform_key=chain.key)
    mine = plan.tasks[options.task_index :: options.num_tasks]
    kept = count_kept(folder, keys, mine, resume=options.resume, overwrite=options.overwrite)
    return WriteResult(None, plan, len(mine) - kept, kept, source.notes, dry_run=True)


def _write(
    job: WriteJob,
    spec: SourceSpec,
    folder: Folder,
    options: WriteOptions,
    on_progress: Callable[[Progress], None],
) -> WriteResult:
    source, plan = job.source, job.plan
    keys = plan_keys(source.stats, plan, transform_key=job.chain.key)
    finished = find_finished(folder, keys, overwrite=options.overwrite)
    if finished is not None:
        return WriteResult(finished, plan, 0, len(plan.tasks), source.notes)
    mine = plan.tasks[options.task_index :: options.num_tasks]
    begin_output(
        folder, keys, plan.tasks, mine, resume=options.resume, overwrite=options.overwrite
    )
    receipts = read_receipts(folder, [task.name for task in mine], keys)
    missing = [task for task in mine if task.name not in receipts]
    job = replace(job, keys=keys.digest, standing=_versions(folder, missing))
    if options.engine == "beam":
        write_with_beam(job, spec, missing, options.engine_arguments)
    else:
        processes = options.processes or default_processes(folder)
        _write_missing(job, missing, receipts, processes, on_progress)
    manifest = publish(folder, source.stats, plan, keys, options.max_bad_records)
    if manifest is None and options.num_tasks == 1:
        raise JobError(
            f"output '{folder.path}': shards of this write have been removed meanwhile: "
            "run it again"
        )
    return WriteResult(manifest, plan, len(missing), len(mine) - len(missing), source.notes)


def default_processes(folder: Folder) -> int:
    """Returns one process per processor; for remote storage two, as half of them are sending."""
    return usable_processors() * (1 if isinstance(folder, LocalFolder) else 2)


def _versions(folder: Folder, tasks: Sequence[ShardTask]) -> dict[str, str]:
    """Returns the versions of the shards of `tasks` that stand there already."""
    present = folder.entries()
    return {task.name: present[task.name].version for task in tasks if task.name in present}


def _write_missing(
    job: WriteJob,
    missing: Sequence[ShardTask],
    receipts: dict[str, FinishedShard],
    processes: int,
    on_progress: Callable[[Progress], None],
) -> None:
    """Writes `missing` and adds their receipts to `receipts`."""
    total = sum(task.records for task in missing)
    records = num_bytes = shards = 0

    def say(note: tuple[int, int] = (0, 0)) -> None:
        nonlocal records, num_bytes
        records += note[0]
        num_bytes += note[1]
        on_progress(Progress(records, total, num_bytes, shards, len(missing)))

    say()
    done = run_pool(partial(_write_one, job), missing, processes=processes, on_note=say)
    with closing(done):
        for task, receipt in done:
            receipts[task.name] = receipt
            shards += 1
            check_budget(receipts.values(), job.max_bad_records)
            say()


def _write_one(
    job: WriteJob, task: ShardTask, note: Callable[[tuple[int, int]], None]
) -> FinishedShard:
    return write_shard(job, task, lambda records, num_bytes: note((records, num_bytes)))
