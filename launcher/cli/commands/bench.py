"""``tenfold bench``: the throughput of the input pipeline alone."""

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.planning.mixture_shares import check_one_folder
from tenfold.data.reading.decoding.decoders import AUTO, BUSY, DECODERS
from tenfold.launcher.cli.feed_flags import define_feed_flags, feed_options, map_name
from tenfold.launcher.cli.flags import Arguments, FlagValues, define_size
from tenfold.launcher.cli.train_flags import (
    cache_options,
    define_cache_flags,
    image_size_from_flags,
)

if TYPE_CHECKING:
    from tenfold.data.reading.benchmark import Rate, ReadBench

USAGE: Final = "--shards=PATH [--flag=value …]"


def define_flags(fv: FlagValues) -> None:
    """Define the flags of bench."""
    text, number = partial(flags.DEFINE_string, flag_values=fv), partial(_define_int, fv)
    text("shards", None, "folder (or gs://…) of shards, as 'tenfold write' made it")
    text("split", "train", "split to read")
    number("num_workers", 1, "read the part of worker 0 among this number of workers")
    number("global_batch_size", 64, "records per step over all workers")
    text(
        "image_size",
        None,
        "size that images are resized to: HEIGHTxWIDTH or one number, in pixels",
    )
    text(
        "decoder", AUTO, f"{AUTO} (the fastest installed), {', '.join(DECODERS)}, module:name or "
        "file.py:name"
    )  # fmt: skip
    text(
        "augment", "", "random flips and crops of the images: flip, crop, crop:MIN_SIDE, flip,crop"
    )
    number("threads", 0, "batches decoded at the same time; 0: one per CPU", lower=0)
    define_size(fv, "shuffle_buffer", 256 * 10**6, "memory for shuffling, summed over all workers")
    define_feed_flags(fv)
    define_cache_flags(fv)
    flags.DEFINE_float(
        "seconds", 5.0, "seconds that each stage is measured", lower_bound=0.1, flag_values=fv
    )
    flags.DEFINE_float(
        "appetite", 2500.0, "records per second that one accelerator trains on",
        lower_bound=1e-3, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum("format", "text", ["text", "json"], "format of the result", flag_values=fv)


def _define_int(
    fv: FlagValues, name: str, default: int, help_text: str, *, lower: int = 1
) -> None:
    flags.DEFINE_integer(name, default, help_text, lower_bound=lower, flag_values=fv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Measure the pipeline and print the result; return the exit status."""
    args.expect_none()
    if not fv.shards:
        raise UserError("--shards is missing: give the folder that holds manifest.json")
    check_one_folder(fv.shards, "bench")
    from tenfold.data.runtime.deferred_keras import defer_unused_keras_modules
    from tenfold.data.runtime.tensorflow_hooks import silence_native_startup
    from tenfold.data.runtime.tensorflow_version import require_tensorflow

    defer_unused_keras_modules()
    with silence_native_startup():
        require_tensorflow()
        import tensorflow

        from tenfold.data.reading.benchmark import measure_reading

        tensorflow.config.list_physical_devices()  # its first call logs the missing GPU drivers

    bench = measure_reading(
        fv.shards,
        split=fv.split,
        num_workers=fv.num_workers,
        global_batch_size=fv.global_batch_size,
        image_size=image_size_from_flags(fv),
        decoder=fv.decoder,
        augment=fv.augment,
        threads=fv.threads,
        shuffle_buffer_bytes=fv.shuffle_buffer,
        seconds=fv.seconds,
        cache=cache_options(fv),
        feed=feed_options(fv),
        map=map_name(fv),
    )
    print(_as_json(bench, fv.appetite) if fv.format == "json" else _as_text(bench, fv.appetite))
    return 0


def _as_json(bench: "ReadBench", appetite: float) -> str:
    document: dict[str, Any] = asdict(bench)
    document["accelerators_fed"] = bench.decoded.records_per_s / appetite
    return json.dumps(document, indent=1)


def _as_text(bench: "ReadBench", appetite: float) -> str:
    accelerators = bench.decoded.records_per_s / appetite
    return "\n".join(
        [
            f"{bench.threads} threads, decoder {bench.decoder or 'none'}, batches of "
            f"{bench.batch_size}, records of {bench.mean_record_bytes:,.0f} bytes",
            _line("raw records, training order", bench.raw),
            _line("parsed, decoded, batched", bench.decoded),
            f"decoding is busy {bench.decode_share:.0%} of the time: "
            f"{limit_of(bench)} is the limit",
            f"fast enough for {accelerators:.1f} accelerators at {appetite:,.0f} records/s each",
        ]
    )


def limit_of(bench: "ReadBench") -> str:
    """Return the stage that limits the pipeline.

    Reading raw records is not the limit if it alone is over twice as fast as the whole pipeline.
    """
    if bench.decode_share >= BUSY:
        return "decoding"
    reading_is_faster = bench.raw.records_per_s > 2 * bench.decoded.records_per_s
    return "parsing and decoding" if reading_is_faster else "reading"


def _line(name: str, rate: "Rate") -> str:
    return (
        f"  {name:<28} {rate.records_per_s:>10,.0f} records/s "
        f"{rate.cpu_ms:>8.3f} ms CPU per record {rate.megabytes_per_s:>8,.0f} MB/s"
    )
