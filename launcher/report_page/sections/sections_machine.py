"""The parts of the page on time, workers, shards and machines."""

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Manifest, Split
from tenfold.data.planning.batch_shares import BatchShares
from tenfold.data.planning.lanes import PAD, WorkerShards, assign_lanes
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

# The legend of each part of a worker's time; the keys are classes of the style sheet.
_MEANING: Final = {
    "starting": "starting (imports, rendezvous)",
    "building": "building (model, compilation of the first step)",
    "training": "training (compute, summing gradients)",
    "computing": "computing",
    "communication": "communication (summing gradients)",
    "waiting": "waiting for input",
    "evaluation": "evaluation",
    "saving": "saving checkpoints and the model",
    "ending": "ending",
    "running": "running",
}

_ESTIMATE: Final = (
    "Communication is an estimate: one all-reduce of the gradients, timed alone before the first "
    "step, takes {share:.0f} % of a step of the slowest worker. Some of it may overlap with "
    "computing, so the real share may be smaller. Computing is the rest of the training time. "
    "The timeline above shows computing, communication and waiting together as training."
)


def times(run: RunFiles, timeline: Timeline | None) -> Markup | None:
    """Return the timeline of the workers, their time by activity, and the events."""
    if timeline is None or not timeline.workers:
        return None
    shown = timeline.workers[:MAX_WORKERS]
    hidden = len(timeline.workers) - len(shown)
    note = tag("p", f"and {hidden:,} more workers", cls="muted") if hidden else None
    earlier = timeline.launches - 1
    before = (
        f"Only the last of {timeline.launches} launches into this run directory is shown."
        if earlier
        else None
    )
    share = _communication_share(run, timeline)
    parts = [_parts(worker, share) for worker in shown]
    estimate = tag("p", _ESTIMATE.format(share=100 * share), cls="muted") if share else None
    return tag(
        "section",
        tag("h2", "Time"),
        tag(
            "div",
            tag("p", before, cls="muted") if before else None,
            tag("h3", "Timeline"),
            _gantt(shown, timeline),
            tag("h3", "Time by activity"),
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
        marks += [
            Stretch((moment - timeline.begin) / length, 0, "restarted", "restart")
            for moment in worker.started_at[1:]
        ]
        bar = strip(stretches, label=f"worker {index} over time", marks=marks)
        cells += [tag("span", f"worker {index}"), tag("div", bar)]
    labels = [tag("span", format_duration(length * quarter / 4)) for quarter in range(5)]
    cells += [tag("span"), tag("div", *labels, cls="axis")]
    return join(tag("div", *cells, cls="rows"), _mark_legend(workers, timeline))


def _mark_legend(workers: Sequence[WorkerTime], timeline: Timeline) -> Markup | None:
    """Return the meaning of the thin lines of the timeline, None if it has none."""
    failed = any(mark.worker >= 0 for mark in timeline.marks)
    restarted = any(worker.starts > 1 for worker in workers)
    kinds = [("fault", "failure")] * failed + [("restarted", "restart")] * restarted
    keys = [tag("span", tag("i", cls=f"key {kind}"), text) for kind, text in kinds]
    return tag("div", *keys, cls="legend") if keys else None


def _communication_share(run: RunFiles, timeline: Timeline) -> float:
    """Return the share of a step that summing gradients takes; 0 if it was not measured.

    This is the mean over the epochs of this launch. The first epoch includes compiling and counts
    only if it is the only epoch.
    """
    shares = [
        line.bottleneck.communication if line.bottleneck else 0.0
        for line in run.epochs
        if line.step >= timeline.first_step
    ]
    return min(1.0, max(0.0, statistics.fmean(shares[1:] or shares or [0.0])))


def _parts(worker: WorkerTime, communication: float) -> dict[str, float]:
    """Return the seconds of each part of a worker's time; they sum to all of its time.

    Args:
      worker: the time of the worker.
      communication: the share of a step that summing gradients takes; 0 if it is not known, so
        that communication and computing stay one part, training.
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
        stretches, begin = [], 0.0
        for kind, seconds in parts.items():
            text = f"{_MEANING[kind]}: {format_duration(seconds)}"
            stretches.append(Stretch(begin / longest, (begin + seconds) / longest, kind, text))
            begin += seconds
        bar = strip(stretches, label=f"time of worker {index} by activity")
        cells += [tag("span", f"worker {index}"), tag("div", bar)]
    return tag("div", *cells, cls="rows")


def _legend(workers: Sequence[Mapping[str, float]]) -> Markup:
    """Return the meaning of the colours, and the share of each in the time of all workers."""
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
        "worker", "address", "last step", "records/s of this worker", "waited for input",
        "peak memory", "starts", "exit code",
    )  # fmt: skip
    columns = [index for index in range(len(head)) if any(row[index] != "" for row in rows)]
    return table(
        tuple(head[index] for index in columns),
        [tuple(row[index] for index in columns) for row in rows],
        numbers="".join("n nnnnnn"[index] for index in columns),
    )


def _own_rate(worker: WorkerTime, *, is_trainer: bool) -> str:
    """Return the rate of this worker alone.

    A user's own program reports the rate of its worker, the built-in trainer the rate of the job,
    of which every worker has an equal part: its lanes give as many records of each batch as the
    lanes of any other worker.
    """
    if worker.records_per_s is None:
        return ""
    return show(worker.records_per_s / (worker.peers if is_trainer else 1))


def _mark_table(timeline: Timeline) -> Markup | None:
    if not timeline.marks:
        return None
    rows = [_mark_row(mark, timeline) for mark in timeline.marks[-MAX_MARKS:]]
    shown = table(("time", "source", "event"), rows, numbers="n")
    return join(tag("h3", "Events"), tag("div", shown, cls="card wrap"))


def _mark_row(mark: Mark, timeline: Timeline) -> tuple[Child, ...]:
    source = "supervisor" if mark.worker < 0 else f"worker {mark.worker}"
    return format_duration(max(mark.time - timeline.begin, 0)), source, mark.text[:400]


# --- shards ---


def shards(run: RunFiles) -> Markup | None:
    """Return the shards of each split by the worker that reads them."""
    train = run.spec.train
    if train is None:
        return None
    title = tag("h2", "Shards by worker")
    if run.manifest is None:
        return tag("section", title, tag("p", run.manifest_problem, cls="muted"))
    elsewhere = train.validation_shards
    names = {train.train_split} if elsewhere else {train.train_split, train.validation_split}
    splits = [split for split in run.manifest.splits if split.name in names]
    paths = [train.shards, *([f"evaluated on {elsewhere}"] if elsewhere else [])]
    if train.others:
        paths[:1] = [f"{each.folder}, share {each.share:g}" for each in train.data_sets]
    where = tag("p", *(tag("code", path) for path in paths), cls="muted")
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
            global_batch_size=train.first_batch_size,
            remainder=train.remainder if split.name == train.train_split else PAD,
        )
    except UserError as error:
        yield tag("p", str(error), cls="bad")
        return
    first = assigned[0]
    yield tag(
        "p",
        f"{plural(first.steps_per_epoch, 'step')} per epoch; each step takes "
        f"{_records_of_lane(first.shares)} from every lane. A block is a shard; the "
        "shade alternates from lane to lane.",
        cls="muted",
    )
    yield tag("div", *_reader_rows(assigned, split), cls="rows")


def _records_of_lane(shares: BatchShares) -> str:
    if shares.are_equal:
        return plural(shares.max_lane_records, "record")
    return f"{shares.max_lane_records - 1:,} or {plural(shares.max_lane_records, 'record')}"


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
    blocks, begin = [], 0
    for lane in worker.lanes:
        for shard in lane.shards:
            text = (
                f"{shard.name}: lane {lane.index}, {plural(shard.records, 'record')}, "
                f"{format_size(shard.bytes)}"
            )
            shade = "lane-b" if lane.index % 2 else "lane-a"
            blocks.append(Stretch(begin / longest, (begin + shard.bytes) / longest, shade, text))
            begin += shard.bytes
    return blocks


# --- environment ---


def environment(run: RunFiles) -> Markup:
    """Return the configuration, the machine, the versions of packages, and links to the logs."""
    cards = [
        _listing("Configuration", _configuration(run)),
        _listing("Environment", _environment_items(run)),
        _listing("Environment variables of the workers", run.spec.env),
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
    given = {name: value for name, value in items.items() if value not in (None, "")}
    if not given:
        return None
    rows = [join(tag("dt", name), tag("dd", str(value))) for name, value in given.items()]
    return tag("div", tag("h3", title), tag("dl", *rows), cls="card")


def footer(run: RunFiles, *, refresh_s: float | None) -> Markup:
    """Return the time of the page, and whether it reloads itself."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.read_at))
    sentences = [f"Made by tenfold report at {when} from {run.where}."]
    if refresh_s:
        sentences.append(f"The job is running: this page reloads itself every {refresh_s:g} s.")
    if run.damaged:
        lines = plural(run.damaged, "line")
        sentences.append(f"{lines} of metrics.jsonl and history.jsonl could not be read.")
    return tag("footer", " ".join(sentences))
