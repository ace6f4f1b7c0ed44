"""The parts of the page on time, shards and machines."""

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Manifest, Split
from tenfold.data.planning.lanes import WorkerShards, assign_lanes
from tenfold.data.units import format_duration, format_size, plural
from tenfold.launcher.job.run_dir import LOGS_FOLDER
from tenfold.launcher.report_page.charts import Stretch, strip
from tenfold.launcher.report_page.markup import Child, Markup, join, table, tag
from tenfold.launcher.report_page.run_files import RunFiles
from tenfold.launcher.report_page.series import percents, show
from tenfold.launcher.report_page.timeline import Mark, Timeline, WorkerTime
from tenfold.models.train_config import TrainConfig

MAX_WORKERS: Final = 64
MAX_SPANS: Final = 2000
MAX_SHARDS: Final = 4096
MAX_MARKS: Final = 40

_MEANING: Final = {
    "starting": "starting (imports, finding each other)",
    "building": "building (model, first step's compilation)",
    "training": "training (compute, exchange of gradients)",
    "computing": "computing",
    "communication": "communication (exchange of gradients)",
    "waiting": "waiting for input",
    "evaluation": "evaluation",
    "saving": "checkpoints, saving the model",
    "ending": "ending",
    "running": "running",
}

_ESTIMATE: Final = (
    "Communication is an estimate: summing gradients over all workers was timed alone, before the "
    "first step, and is {share:.0f} % of the time of the slowest worker's steps; where "
    "waiting for input leaves less than that, it is what is left. Part of it may run while a "
    "worker computes. Computing is the rest of training, which is one colour on the time axis."
)


def times(run: RunFiles, timeline: Timeline | None) -> Markup | None:
    """Returns the workers on the time axis, where their time went, and what happened."""
    if timeline is None or not timeline.workers:
        return None
    shown = timeline.workers[:MAX_WORKERS]
    hidden = len(timeline.workers) - len(shown)
    note = tag("p", f"and {plural(hidden, 'worker')} more", cls="muted") if hidden else None
    earlier = timeline.launches - 1
    before = f"The last of {timeline.launches} launches into this folder." if earlier else None
    share = _communication_share(run, timeline)
    parts = [_parts(worker, share) for worker in shown]
    estimate = tag("p", _ESTIMATE.format(share=100 * share), cls="muted") if share else None
    return tag(
        "section",
        tag("h2", "Time"),
        tag(
            "div",
            tag("p", before, cls="muted") if before else None,
            tag("h3", "When"),
            _gantt(shown, timeline),
            tag("h3", "Where it went"),
            _shares(parts),
            _legend(parts),
            estimate,
            note,
            cls="card",
        ),
        tag("h3", "Workers"),
        tag("div", _worker_table(run, shown), cls="card"),
        _mark_table(timeline),
    )


def _gantt(workers: Sequence[WorkerTime], timeline: Timeline) -> Markup:
    length = max(timeline.end - timeline.begin, 1e-9)
    cells: list[Child] = []
    for index, worker in enumerate(workers):
        spans = worker.spans[-MAX_SPANS:]
        stretches = [
            Stretch(
                (span.begin - timeline.begin) / length,
                (span.end - timeline.begin) / length,
                span.kind,
                f"{span.kind}: {format_duration(span.end - span.begin)}",
            )
            for span in spans
        ]
        marks = [
            Stretch((mark.time - timeline.begin) / length, 0, "fault", mark.text)
            for mark in timeline.marks
            if mark.worker == index
        ]
        bar = strip(stretches, label=f"worker {index} over time", marks=marks)
        cells += [tag("span", f"worker {index}"), tag("div", bar)]
    labels = [tag("span", format_duration(length * at / 4)) for at in range(5)]
    cells += [tag("span"), tag("div", *labels, cls="axis")]
    return tag("div", *cells, cls="rows")


def _communication_share(run: RunFiles, timeline: Timeline) -> float:
    """Returns the share of a step that summing gradients takes; 0 where it was not measured.

    It is the mean over this launch's epochs; the first, which holds the compiling, counts only
    where it is the only one.
    """
    told = [
        line.bottleneck.communication if line.bottleneck else 0.0
        for line in run.epochs
        if line.step >= timeline.first_step
    ]
    return min(1.0, max(0.0, statistics.fmean(told[1:] or told or [0.0])))


def _parts(worker: WorkerTime, communication: float) -> dict[str, float]:
    """Returns the seconds of each part of a worker's time; together they are all of it.

    `communication` is its share of a step; 0 leaves it in one with computing.
    """
    parts: dict[str, float] = {}
    for kind, seconds in worker.seconds().items():
        if kind != "training":
            parts[kind] = seconds
            continue
        waiting = min(worker.waited_s, seconds)
        summing = min(communication * seconds, seconds - waiting)
        parts["computing" if communication else "training"] = seconds - waiting - summing
        if communication:
            parts["communication"] = summing
        parts["waiting"] = waiting
    return parts


def _shares(workers: Sequence[Mapping[str, float]]) -> Markup:
    cells: list[Child] = []
    longest = max((sum(parts.values()) for parts in workers), default=0) or 1
    for index, parts in enumerate(workers):
        stretches, at = [], 0.0
        for kind, seconds in parts.items():
            text = f"{_MEANING[kind]}: {format_duration(seconds)}"
            stretches.append(Stretch(at / longest, (at + seconds) / longest, kind, text))
            at += seconds
        bar = strip(stretches, label=f"where worker {index}'s time went")
        cells += [tag("span", f"worker {index}"), tag("div", bar)]
    return tag("div", *cells, cls="rows")


def _legend(workers: Sequence[Mapping[str, float]]) -> Markup:
    """Returns what the colours mean, and the share of each in the time of all workers."""
    total: dict[str, float] = {}
    for parts in workers:
        for kind, seconds in parts.items():
            total[kind] = total.get(kind, 0.0) + seconds
    keys = [
        tag("span", tag("i", cls=f"key {kind}"), f"{_MEANING[kind]} {percent} %")
        for kind, percent in zip(total, percents(list(total.values())), strict=True)
    ]
    return tag("div", *keys, cls="legend")


def _worker_table(run: RunFiles, workers: Sequence[WorkerTime]) -> Markup:
    rows: list[tuple[Child, ...]] = []
    addresses = run.cluster.workers
    for index, worker in enumerate(workers):
        training = worker.seconds().get("training", 0.0)
        waited = f"{100 * min(1, worker.waited_s / training):.0f} %" if training else ""
        rows.append(
            (
                index,
                addresses[index] if index < len(addresses) else "",
                "" if worker.step is None else f"{worker.step:,}",
                _own_rate(worker, is_trainer=bool(run.spec.train)),
                waited,
                format_size(worker.peak_rss_bytes) if worker.peak_rss_bytes else "",
                worker.starts,
                "" if worker.exit_code is None else worker.exit_code,
            )
        )
    head = (
        "worker", "address", "last step", "own records/s, last steps", "waited for input",
        "peak memory", "starts", "exit code",
    )  # fmt: skip
    told = [at for at in range(len(head)) if any(row[at] != "" for row in rows)]
    return table(
        tuple(head[at] for at in told),
        [tuple(row[at] for at in told) for row in rows],
        numbers="".join("n nnnnnn"[at] for at in told),
    )


def _own_rate(worker: WorkerTime, *, is_trainer: bool) -> str:
    """Returns the worker's own rate: a program tells its own, the built-in trainer the job's.

    Of the job's every worker has an equal part: lanes give each as many records of a batch.
    """
    if worker.records_per_s is None:
        return ""
    return show(worker.records_per_s / (worker.peers if is_trainer else 1))


def _mark_table(timeline: Timeline) -> Markup | None:
    if not timeline.marks:
        return None
    rows = [_mark_row(mark, timeline) for mark in timeline.marks[-MAX_MARKS:]]
    shown = table(("after", "who", "what"), rows, numbers="n")
    return join(tag("h3", "What happened"), tag("div", shown, cls="card wrap"))


def _mark_row(mark: Mark, timeline: Timeline) -> tuple[Child, ...]:
    who = "supervisor" if mark.worker < 0 else f"worker {mark.worker}"
    return format_duration(max(mark.time - timeline.begin, 0)), who, mark.text[:400]


# --- shards ---


def shards(run: RunFiles) -> Markup | None:
    """Returns the shard layout and which worker reads what of it."""
    train = run.spec.train
    if train is None:
        return None
    title = tag("h2", "Shards, and who reads them")
    if run.manifest is None:
        return tag("section", title, tag("p", run.manifest_problem, cls="muted"))
    names = {train.train_split, train.validation_split}
    splits = [split for split in run.manifest.splits if split.name in names]
    where = tag("p", tag("code", train.shards), cls="muted")
    cards = [
        tag("div", *_split_parts(run, train, run.manifest, split), cls="card") for split in splits
    ]
    return tag("section", title, where, *cards)


def _split_parts(
    run: RunFiles, train: TrainConfig, manifest: Manifest, split: Split
) -> Iterable[Markup]:
    total = (
        f"{plural(split.num_records, 'record')}, {format_size(split.num_bytes)} in "
        f"{plural(len(split.shards), 'shard')}, {plural(manifest.num_lanes, 'lane')}"
    )
    yield tag("p", tag("b", split.name), f": {total}")
    try:
        assigned = assign_lanes(
            manifest,
            split.name,
            num_workers=run.cluster.num_workers,
            global_batch_size=train.global_batch_size,
            drop_remainder=split.name == train.train_split,
        )
    except UserError as error:
        yield tag("p", str(error), cls="bad")
        return
    one = assigned[0]
    yield tag(
        "p",
        f"{plural(one.steps_per_epoch, 'step')} per epoch; each takes {one.lane_batch} from every "
        "lane. One block is a shard, the shades tell lanes apart.",
        cls="muted",
    )
    yield tag("div", *_reader_rows(assigned, split), cls="rows")


def _reader_rows(assigned: Sequence[WorkerShards], split: Split) -> Iterable[Markup]:
    longest = max(sum(shard.bytes for shard in worker.shards) for worker in assigned) or 1
    drawn = len(split.shards) <= MAX_SHARDS
    for worker in assigned[:MAX_WORKERS]:
        lanes = [str(lane.index) for lane in worker.lanes]
        named = lanes[0] if len(lanes) == 1 else f"{lanes[0]}–{lanes[-1]}"
        size = format_size(sum(shard.bytes for shard in worker.shards))
        text = (
            f"lane{'s' if len(lanes) > 1 else ''} {named}: "
            f"{plural(len(worker.shards), 'shard')}, "
            f"{plural(worker.num_records, 'record')}, {size}"
        )
        bar = strip(_blocks(worker, longest), label=text) if drawn else None
        yield tag("span", f"worker {worker.worker}")
        yield tag("div", bar, tag("div", text, cls="axis"))
    if len(assigned) > MAX_WORKERS:
        yield tag("span", f"and {len(assigned) - MAX_WORKERS} more", cls="muted")


def _blocks(worker: WorkerShards, longest: int) -> list[Stretch]:
    blocks, at = [], 0
    for lane in worker.lanes:
        for shard in lane.shards:
            text = (
                f"{shard.name}: lane {lane.index}, {plural(shard.records, 'record')}, "
                f"{format_size(shard.bytes)}"
            )
            shade = "lane-b" if lane.index % 2 else "lane-a"
            blocks.append(Stretch(at / longest, (at + shard.bytes) / longest, shade, text))
            at += shard.bytes
    return blocks


# --- environment ---


def environment(run: RunFiles) -> Markup:
    """Returns the configuration, the machine and versions, and where the logs are."""
    cards = [
        _listing("Configuration", _configuration(run)),
        _listing("Environment", _environment_items(run)),
        _listing("Set in every worker", run.spec.env),
    ]
    logs = [
        tag("li", tag("a", name, href=f"{LOGS_FOLDER}/{name}")) for name in run.logs[:MAX_WORKERS]
    ]
    if logs:
        cards.append(tag("div", tag("h3", "Logs"), tag("ul", *logs), cls="card"))
    title = tag("h2", "Configuration and environment")
    return tag("section", title, tag("div", *(c for c in cards if c), cls="columns"))


def _configuration(run: RunFiles) -> dict[str, Any]:
    train = run.spec.train
    return train.to_json() if train else {"program": " ".join(run.spec.argv)}


def _environment_items(run: RunFiles) -> dict[str, Any]:
    items = dict(run.environment)
    packages = items.pop("packages", {})
    memory = items.pop("memory_bytes", None)
    if isinstance(memory, int):
        items["memory"] = format_size(memory)
    if isinstance(items.get("command"), list):
        items["command"] = " ".join(map(str, items["command"]))
    return {**items, **(packages if isinstance(packages, dict) else {})}


def _listing(title: str, items: Mapping[str, Any]) -> Markup | None:
    told = {name: value for name, value in items.items() if value not in (None, "")}
    if not told:
        return None
    rows = [join(tag("dt", name), tag("dd", str(value))) for name, value in told.items()]
    return tag("div", tag("h3", title), tag("dl", *rows), cls="card")


def footer(run: RunFiles, *, refresh_s: float | None) -> Markup:
    """Returns when the page was made, and whether it renews itself."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.read_at))
    words = [f"Made by tenfold report at {when}, from {run.where}."]
    if refresh_s:
        words.append(f"The job is running: this page renews itself every {refresh_s:g} s.")
    if run.damaged:
        words.append(f"{plural(run.damaged, 'line')} could not be read and were passed over.")
    return tag("footer", " ".join(words))
