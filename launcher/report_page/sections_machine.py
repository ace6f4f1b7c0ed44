"""The parts of the page on time, shards and machines."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.lanes import WorkerShards, assign_lanes
from tenfold.data.manifest import Manifest, Split
from tenfold.data.sizes import format_duration, format_size, plural
from tenfold.launcher.report_page.charts import Stretch, strip
from tenfold.launcher.report_page.markup import Child, Markup, join, table, tag
from tenfold.launcher.report_page.run_files import RunFiles
from tenfold.launcher.report_page.series import show
from tenfold.launcher.report_page.timeline import ORDER, Mark, Timeline, WorkerTime

MOST_WORKERS: Final = 64
MOST_SPANS: Final = 2000
MOST_SHARDS: Final = 4096
MOST_MARKS: Final = 40

_MEANING: Final = {
    "starting": "starting (imports, finding each other)",
    "building": "building (model, first step's compilation)",
    "training": "training (compute, exchange of gradients)",
    "waiting": "waiting for input",
    "evaluation": "evaluation",
    "saving": "saving",
    "ending": "ending",
    "running": "running",
}


def times(run: RunFiles, timeline: Timeline | None) -> Markup | None:
    """Returns the workers on the time axis, where their time went, and what happened."""
    if timeline is None or not timeline.workers:
        return None
    shown = timeline.workers[:MOST_WORKERS]
    hidden = len(timeline.workers) - len(shown)
    note = tag("p", f"and {plural(hidden, 'worker')} more", cls="muted") if hidden else None
    earlier = timeline.launches - 1
    before = f"The last of {timeline.launches} launches into this folder." if earlier else None
    return tag(
        "section",
        tag("h2", "Time"),
        tag(
            "div",
            tag("p", before, cls="muted") if before else None,
            tag("h3", "When"),
            _gantt(shown, timeline),
            tag("h3", "Where it went"),
            _shares(shown),
            _legend(shown),
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
        spans = worker.spans[-MOST_SPANS:]
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


def _shares(workers: Sequence[WorkerTime]) -> Markup:
    cells: list[Child] = []
    longest = max((sum(worker.seconds().values()) for worker in workers), default=0) or 1
    for index, worker in enumerate(workers):
        stretches, at = [], 0.0
        for kind, seconds in _split_waiting(worker).items():
            text = f"{_MEANING[kind]}: {format_duration(seconds)}"
            stretches.append(Stretch(at / longest, (at + seconds) / longest, kind, text))
            at += seconds
        bar = strip(stretches, label=f"where worker {index}'s time went")
        cells += [tag("span", f"worker {index}"), tag("div", bar)]
    return tag("div", *cells, cls="rows")


def _split_waiting(worker: WorkerTime) -> dict[str, float]:
    """Returns the seconds of each kind; what training waited for input stands for itself."""
    seconds = worker.seconds()
    if "training" in seconds:
        waited = min(worker.waited_s, seconds["training"])
        seconds["training"] -= waited
        seconds["waiting"] = waited
    order = [*ORDER[:3], "waiting", *ORDER[3:]]
    return {kind: seconds[kind] for kind in order if kind in seconds}


def _legend(workers: Sequence[WorkerTime]) -> Markup:
    """Returns what the colours mean, with the seconds of the worker that took longest."""
    total: dict[str, float] = {}
    for worker in workers:
        for kind, seconds in _split_waiting(worker).items():
            total[kind] = total.get(kind, 0.0) + seconds
    whole = sum(total.values()) or 1
    keys = [
        tag("span", tag("i", cls=f"key {kind}"), f"{_MEANING[kind]} {100 * s / whole:.0f} %")
        for kind, s in total.items()
    ]
    return tag("div", *keys, cls="legend")


def _worker_table(run: RunFiles, workers: Sequence[WorkerTime]) -> Markup:
    rows: list[tuple[Child, ...]] = []
    addresses = run.cluster.workers
    for index, worker in enumerate(workers):
        training = worker.seconds().get("training", 0.0)
        waited = f"{100 * worker.waited_s / training:.0f} %" if training else ""
        rows.append(
            (
                index,
                addresses[index] if index < len(addresses) else "",
                "" if worker.step is None else f"{worker.step:,}",
                "" if worker.records_per_s is None else show(worker.records_per_s),
                waited,
                format_size(worker.peak_rss_bytes) if worker.peak_rss_bytes else "",
                worker.starts,
                "" if worker.exit_code is None else worker.exit_code,
            )
        )
    head = (
        "worker", "address", "last step", "job's records/s, as it saw it", "waited for input",
        "peak memory", "starts", "exit code",
    )  # fmt: skip
    told = [at for at in range(len(head)) if any(row[at] != "" for row in rows)]
    return table(
        tuple(head[at] for at in told),
        [tuple(row[at] for at in told) for row in rows],
        numbers="".join("n nnnnnn"[at] for at in told),
    )


def _mark_table(timeline: Timeline) -> Markup | None:
    if not timeline.marks:
        return None
    rows = [_mark_row(mark, timeline) for mark in timeline.marks[-MOST_MARKS:]]
    shown = table(("after", "who", "what"), rows, numbers="n")
    return join(tag("h3", "What happened"), tag("div", shown, cls="card wrap"))


def _mark_row(mark: Mark, timeline: Timeline) -> tuple[Child, ...]:
    who = "supervisor" if mark.worker < 0 else f"worker {mark.worker}"
    return format_duration(max(mark.time - timeline.begin, 0)), who, mark.text[:400]


# --- shards ---


def shards(run: RunFiles) -> Markup | None:
    """Returns the shard layout and which worker reads what of it."""
    if not run.spec.train:
        return None
    title = tag("h2", "Shards, and who reads them")
    if run.manifest is None:
        return tag("section", title, tag("p", run.manifest_problem, cls="muted"))
    names = {run.spec.train.get("train_split"), run.spec.train.get("validation_split")}
    splits = [split for split in run.manifest.splits if split.name in names]
    where = tag("p", tag("code", str(run.spec.train.get("shards"))), cls="muted")
    cards = [tag("div", *_split_parts(run, run.manifest, split), cls="card") for split in splits]
    return tag("section", title, where, *cards)


def _split_parts(run: RunFiles, manifest: Manifest, split: Split) -> Iterable[Markup]:
    train = run.spec.train
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
            global_batch_size=int(train["global_batch_size"]),
            drop_remainder=split.name == train.get("train_split"),
        )
    except (UserError, KeyError, ValueError, TypeError) as error:
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
    drawn = len(split.shards) <= MOST_SHARDS
    for worker in assigned[:MOST_WORKERS]:
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
    if len(assigned) > MOST_WORKERS:
        yield tag("span", f"and {len(assigned) - MOST_WORKERS} more", cls="muted")


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
        _listing("Configuration", run.spec.train or {"program": " ".join(run.spec.argv)}),
        _listing("Environment", _environment_items(run)),
        _listing("Set in every worker", run.spec.env),
    ]
    logs = [tag("li", tag("a", name, href=f"logs/{name}")) for name in run.logs[:MOST_WORKERS]]
    if logs:
        cards.append(tag("div", tag("h3", "Logs"), tag("ul", *logs), cls="card"))
    title = tag("h2", "Configuration and environment")
    return tag("section", title, tag("div", *(c for c in cards if c), cls="columns"))


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
