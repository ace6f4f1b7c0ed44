"""The flags of the built-in trainer and of its shard cache, and the TrainConfig they make."""

import os
import re
from collections.abc import Sequence
from functools import partial
from typing import Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.planning.lanes import DROP, REMAINDERS
from tenfold.data.planning.mixture_shares import DataShare
from tenfold.data.reading.decoding.decoders import AUTO, DECODERS
from tenfold.data.storage.cache_options import AUTO as CACHE_AUTO
from tenfold.data.storage.cache_options import DEFAULT_CACHE_BYTES, OFF, CacheOptions
from tenfold.data.units import parse_duration, parse_image_size
from tenfold.launcher.cli.feed_flags import define_feed_flags, feed_options, map_name
from tenfold.launcher.cli.flags import FlagValues, define_size, in_group
from tenfold.launcher.job.run_dir import BEST_MODEL_FILE, SALVAGE_FOLDER
from tenfold.models.model_registry import BUILT_IN, check_model_name, check_own_name
from tenfold.models.run_rules.stop_rules import StopRules
from tenfold.models.train_config import (
    CLASS_WEIGHTS,
    COLLECTIVES,
    GRADIENT_DTYPES,
    ON_NAN,
    PRECISIONS,
    SCHEDULES,
    TrainConfig,
)

CACHE_MODES: Final = (CACHE_AUTO, OFF)


@in_group("Local cache")
def define_cache_flags(fv: FlagValues) -> None:
    """Define the flags of the cache."""
    flags.DEFINE_enum(
        "cache", CACHE_AUTO, CACHE_MODES,
        "shards on gs:// (and other URLs) are fetched into a local cache ahead of their use; off: "
        "TensorFlow streams them from gs://", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_string(
        "cache_dir", "", "folder of the cache on each host, shared by its workers (default: "
        "$XDG_CACHE_HOME/tenfold/shards, else ~/.cache/tenfold/shards)", flag_values=fv,
    )  # fmt: skip
    define_size(
        fv,
        "cache_size",
        DEFAULT_CACHE_BYTES,
        "limit of the cache; it evicts the least recently used shards",
    )


def cache_options(fv: FlagValues) -> CacheOptions:
    """Return the cache options that the flags ask for."""
    return CacheOptions(fv.cache, fv.cache_dir, fv.cache_size)


@in_group("Training")
def define_train_flags(fv: FlagValues) -> None:
    """Define the flags of the built-in trainer."""
    text = partial(flags.DEFINE_string, flag_values=fv)
    number = partial(flags.DEFINE_integer, flag_values=fv)
    real = partial(flags.DEFINE_float, flag_values=fv)
    choice = partial(flags.DEFINE_enum, flag_values=fv)
    text(
        "model", "cnn", f"{', '.join(BUILT_IN)} (unet:21 for 21 classes), keras:NAME (of Keras "
        "Applications), module:function or file.py:function"
    )  # fmt: skip
    number("epochs", 1, "passes over the training split", 1)
    number("global_batch_size", 64, "records per step over all workers", 1)
    number("seed", 0, "seed of the order of records and of the initial weights", 0)
    text(
        "validation_shards", "", "evaluate on these shards, their split validation or their only "
        "one, instead of on the split validation of --shards",
    )  # fmt: skip
    text("image_size", None, "images are resized to this: HEIGHTxWIDTH or one number, in pixels")
    real("learning_rate", None, "learning rate (default: the model's own)")
    choice("schedule", "constant", SCHEDULES, "how the learning rate falls to 0 over the run")
    number(
        "warmup_steps",
        0,
        "steps in which the learning rate rises from 0, with --schedule=cosine",
        0,
    )
    real("clip_norm", None, "gradients are scaled down to this norm, over all variables")
    choice(
        "class_weights",
        "none",
        CLASS_WEIGHTS,
        "balanced gives records of rare classes more weight",
    )
    choice(
        "remainder", DROP, REMAINDERS, "records too few for a whole batch at an epoch's end: drop "
        "them (others each epoch), pad (a smaller batch) or repeat (with records from its start)",
    )  # fmt: skip
    text(
        "bucket", "", "a list or a text: records are dealt to the steps by its length, so that "
        "those of a batch are similar"
    )  # fmt: skip
    text(
        "balance", "", "label: records of rare classes are read several times an epoch, others "
        "not in every one, so that all classes are equally frequent"
    )  # fmt: skip
    choice("precision", "float32", PRECISIONS, "number format of the layers' computations")
    choice(
        "on_nan",
        "fail",
        ON_NAN,
        "if the loss, a gradient or a weight is not finite: fail, skip the step's update, stop "
        "and keep the model of the newest checkpoint, or train on",
    )
    flags.DEFINE_bool("jit_compile", False, "compile the steps with XLA", flag_values=fv)
    flags.DEFINE_multi_string(
        "callback", [], "your own Keras callback, module:name or file.py:name; repeatable",
        flag_values=fv,
    )  # fmt: skip
    choice(
        "collective", "auto", COLLECTIVES, "how workers exchange gradients: ring (gRPC), nccl "
        "(between GPUs) or what TensorFlow chooses"
    )  # fmt: skip
    define_size(
        fv, "pack_bytes", None, "gradients are exchanged in packs of about this size, as they "
        "come, as 4MB (default: all at once)"
    )  # fmt: skip
    flags.DEFINE_float(
        "collective_timeout", 0.0, "seconds after which an exchange has failed; 0: it waits, and "
        "--hang_timeout looks after it", lower_bound=0.0, flag_values=fv,
    )  # fmt: skip
    number(
        "accumulate", 1, "a step has so many times --global_batch_size records, computed in as "
        "many parts, and exchanges gradients once", 1
    )  # fmt: skip
    choice(
        "gradient_dtype", "float32", GRADIENT_DTYPES, "how gradients are exchanged: bfloat16 "
        "takes half the bytes, and rounds each number by up to 0.4 %"
    )  # fmt: skip
    number("steps_per_execution", 16, "steps per call into TensorFlow", 1)
    define_size(fv, "shuffle_buffer", 256 * 10**6, "memory for shuffling, of all workers together")
    text(
        "augment",
        "",
        "random augmentation of training images: flip, crop, crop:MIN_SIDE, flip,crop",
    )
    text(
        "decoder", AUTO, f"{AUTO} (the fastest installed), {', '.join(DECODERS)}, module:name or "
        "file.py:name"
    )  # fmt: skip
    define_feed_flags(fv)
    define_cache_flags(fv)
    text("checkpoint_every", None, "interval of further checkpoints: 500 (steps), 90s or 10min")
    number("keep_checkpoints", 2, "how many of the newest checkpoints to keep", 1)
    text(
        "keep_best", "", "a figure, as val_loss: the model of its best value is kept as "
        f"{BEST_MODEL_FILE} in the run directory"
    )  # fmt: skip
    number("validate_every", 0, "evaluate every so many steps, and after each epoch", 0)
    number(
        "patience", 0, "end after so many evaluations in a row without a better --monitor (0: "
        "never)", 0
    )  # fmt: skip
    text(
        "monitor", "val_loss", "the figure of --patience: the loss or a metric of the model, "
        "val_… of the validation split; NAME:max or NAME:min where the name does not tell"
    )  # fmt: skip
    number("max_steps", 0, "end after so many steps of the whole run; 0: after --epochs", 0)
    text("max_time", "", "end when the run has lasted so long, as 90s, 30m or 2h")


def train_flag_names() -> tuple[str, ...]:
    """Return the names of the flags that `define_train_flags` defines."""
    fv = FlagValues()
    define_train_flags(fv)
    return tuple(fv)


def train_config(
    fv: FlagValues,
    *,
    data_sets: Sequence[DataShare],
    run_dir: str,
    validation_shards: str = "",
) -> TrainConfig:
    """Return the trainer's configuration.

    Args:
      fv: the flags.
      data_sets: the folders of shards, absolute or URLs, with their shares of each batch.
      run_dir: the run directory, absolute or a URL.
      validation_shards: the folder of other shards to evaluate on, absolute or a URL; "" for none.

    Raises:
      UserError: a flag has a wrong value, or a model or callback does not exist.
    """
    steps, seconds = parse_interval(fv.checkpoint_every)
    stop = StopRules(
        patience=fv.patience,
        monitor=fv.monitor,
        max_steps=fv.max_steps,
        max_time_s=parse_duration(fv.max_time, "--max_time") if fv.max_time else 0.0,
    )
    if fv["monitor"].present and not fv.patience:
        raise UserError(f"--monitor={fv.monitor} needs --patience=N: the evaluations to wait for")
    config = TrainConfig(
        shards=data_sets[0].folder,
        share=data_sets[0].share,
        others=tuple(data_sets[1:]),
        run_dir=run_dir,
        model=fv.model,
        epochs=fv.epochs,
        global_batch_size=fv.global_batch_size * fv.accumulate,
        accumulate=fv.accumulate,
        gradient_dtype=fv.gradient_dtype,
        seed=fv.seed,
        image_size=image_size_from_flags(fv),
        learning_rate=fv.learning_rate,
        schedule=fv.schedule,
        warmup_steps=fv.warmup_steps,
        clip_norm=fv.clip_norm,
        class_weights=fv.class_weights,
        precision=fv.precision,
        on_nan=fv.on_nan,
        remainder=fv.remainder,
        bucket=fv.bucket,
        balance=fv.balance,
        feed=feed_options(fv),
        map=map_name(fv),
        jit_compile=fv.jit_compile,
        callbacks=tuple(fv.callback),
        steps_per_execution=fv.steps_per_execution,
        collective=fv.collective,
        pack_bytes=fv.pack_bytes or 0,
        collective_timeout_s=fv.collective_timeout,
        shuffle_buffer_bytes=fv.shuffle_buffer,
        augment=fv.augment,
        decoder=fv.decoder,
        cache=fv.cache,
        cache_dir=fv.cache_dir,
        cache_bytes=fv.cache_size,
        salvage=f"{run_dir}/{SALVAGE_FOLDER}" if fv.on_bad_record == "skip" else "",
        checkpoint_every_steps=steps,
        checkpoint_every_s=seconds,
        keep_checkpoints=fv.keep_checkpoints,
        keep_best=fv.keep_best,
        validate_every_steps=fv.validate_every,
        stop=stop,
        validation_shards=validation_shards,
        working_dir=os.getcwd(),
    )
    check_model_name(config.model, working_dir=config.working_dir)
    for name in config.callbacks:
        check_own_name(name, working_dir=config.working_dir, what="callback")
    return config


def image_size_from_flags(fv: FlagValues) -> tuple[int, int] | None:
    """Return (height, width) of --image_size, or None where the flag is not given.

    Raises:
      UserError: the flag's value is no size.
    """
    if fv.image_size is None:
        return None
    return parse_image_size(fv.image_size, f"--image_size={fv.image_size}")


_INTERVAL = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(steps?|s|min|h|)")

_UNIT_S: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}


def parse_interval(text: str | None) -> tuple[int, float]:
    """Return an interval as (steps, seconds), one of them 0; both are 0 for None.

    Args:
      text: ``500``, ``500steps``, ``90s``, ``10min`` or ``2h``.

    Raises:
      UserError: the text is no such interval.
    """
    if text is None:
        return 0, 0.0
    match = _INTERVAL.fullmatch(text.strip())
    number = float(match[1]) if match else 0.0
    in_steps = match is not None and match[2] not in _UNIT_S
    if match is None or number <= 0 or (in_steps and not number.is_integer()):
        raise UserError(f"checkpoint_every '{text}' is not like 500 (steps), 90s or 10min")
    return (int(number), 0.0) if in_steps else (0, number * _UNIT_S[match[2]])
