"""``tenfold bench``: how fast the input pipeline alone delivers records."""

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.reading.decoding.decoders import AUTO, BUSY, DECODERS
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
    """Defines the flags of bench."""
    text, number = partial(flags.DEFINE_string, flag_values=fv), partial(_define_int, fv)
    text("shards", None, "folder (or gs://…) of shards, as 'tenfold write' made it")
    text("split", "train", "the split to read")
    number("num_workers", 1, "read what worker 0 of so many would read")
    number("global_batch_size", 64, "records per step over all workers")
    text("image_size", None, "images are resized to this: HEIGHTxWIDTH or one number, in pixels")
    text(
        "decoder", AUTO, f"{AUTO} (the fastest installed), {', '.join(DECODERS)}, module:name or "
        "file.py:name"
    )  # fmt: skip
    text("augment", "", "random views of the images: flip, crop, crop:MIN_SIDE, flip,crop")
    number("threads", 0, "batches decoded side by side; 0: one per processor", lower=0)
    define_size(
        fv, "shuffle_buffer", 256 * 10**6, "memory for shuffling, over all workers together"
    )
    define_cache_flags(fv)
    flags.DEFINE_float(
        "seconds", 5.0, "how long each stage is measured", lower_bound=0.1, flag_values=fv
    )
    flags.DEFINE_float(
        "appetite", 2500.0, "records per second that one accelerator takes while it trains",
        lower_bound=1e-3, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "format", "text", ["text", "json"], "how the result is printed", flag_values=fv
    )


def _define_int(
    fv: FlagValues, name: str, default: int, help_text: str, *, lower: int = 1
) -> None:
    flags.DEFINE_integer(name, default, help_text, lower_bound=lower, flag_values=fv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Measures and prints; returns the exit status."""
    args.expect_none()
    if not fv.shards:
        raise UserError("--shards is missing: name the folder that holds manifest.json")
    from tenfold.data.runtime.tensorflow_hooks import silence_native_startup

    with silence_native_startup():
        import tensorflow

        from tenfold.data.reading.benchmark import measure_reading

        tensorflow.config.list_physical_devices()  # which says at its first call what it misses

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
    )
    print(_as_json(bench, fv.appetite) if fv.format == "json" else _as_text(bench, fv.appetite))
    return 0


def _as_json(bench: "ReadBench", appetite: float) -> str:
    document: dict[str, Any] = asdict(bench)
    document["accelerators_fed"] = bench.decoded.records_per_s / appetite
    return json.dumps(document, indent=1)


def _as_text(bench: "ReadBench", appetite: float) -> str:
    fed = bench.decoded.records_per_s / appetite
    return "\n".join(
        [
            f"{bench.threads} threads, decoder {bench.decoder or 'none'}, batches of "
            f"{bench.batch_size}, records of {bench.mean_record_bytes:,.0f} bytes",
            _line("raw records, in their order", bench.raw),
            _line("parsed, decoded, batched", bench.decoded),
            f"decoding is at work {bench.decode_share:.0%} of the time: "
            f"{limit_of(bench)} is the limit",
            f"feeds {fed:.1f} accelerators that take {appetite:,.0f} records/s each",
        ]
    )


def limit_of(bench: "ReadBench") -> str:
    """Returns what bounds the pipeline: raw reading that is far quicker cannot."""
    if bench.decode_share >= BUSY:
        return "decoding"
    quick = bench.raw.records_per_s > 2 * bench.decoded.records_per_s
    return "parsing and decoding" if quick else "reading"


def _line(name: str, rate: "Rate") -> str:
    return (
        f"  {name:<28} {rate.records_per_s:>10,.0f} records/s {rate.cpu_ms:>8.3f} ms CPU each"
        f" {rate.megabytes_per_s:>8,.0f} MB/s"
    )
