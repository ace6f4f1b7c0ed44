"""Checks before anything starts that are cheap: no TensorFlow, no waiting for hosts."""

import contextlib
from collections.abc import Sequence
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.image_header import image_shape
from tenfold.data.format.manifest import IMAGE, LABEL, Feature, Manifest
from tenfold.data.integrity.inspect_shards import first_records, image_of
from tenfold.data.planning.class_balance import find_balance
from tenfold.data.planning.lanes import PAD, assign_lanes, imbalance
from tenfold.data.planning.splits.validation_split import validation_split
from tenfold.data.reading.feeding.feed_options import LONGEST, FeedOptions
from tenfold.data.reading.feeding.input_spec import DEFAULT_SIDE, InputSpec, bucket_feature
from tenfold.data.reading.mixing.mixture import Mixture, open_mixture
from tenfold.data.reading.read_options import ReadOptions, WorkerPlace
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.launcher.job.job_spec import job_from_json
from tenfold.launcher.job.run_dir import BEST_MODEL_FILE, CHECKPOINTS_FOLDER, JOB_FILE
from tenfold.models.model_registry import built_in_name
from tenfold.models.run_rules.figures import watched_figure
from tenfold.models.train_config import STEP_FIELDS, TrainConfig, step_field_conflict

_IMAGE_MODELS: Final = ("cnn", "resnet50", "unet", "keras")
# From this imbalance on, a launch says what it costs.
_NOTABLE_IMBALANCE: Final = 0.05
# Images whose headers are read to say how much sizes vary.
_SAMPLED_IMAGES: Final = 64


def check_training(config: TrainConfig, *, num_workers: int) -> int:
    """Check a training run against the manifests of its shards.

    Returns:
      The lanes, which workers can be no more than.

    Raises:
      UserError: there are no such shards, they do not have what a built-in model needs, the
        workers are more than the lanes, there are too few records, or the run directory holds a
        run in another order.
    """
    data = _open_data(config, num_workers)
    manifest, spec = data.first.manifest, data.first.spec
    for member in data.members:
        if config.bucket:
            bucket_feature(member.manifest, config.bucket)
        if config.balance:
            find_balance(member.manifest, config.train_split, config.balance)
    if not config.map:  # the function alone knows what the model is fed
        _check_built_in(config.model, spec.inputs, spec.targets, config.feed)
    check_resume(config)
    for member in data.members:
        # Raises UserError if the workers do not fit the lanes, or the records a batch.
        _ = member.shards
    where = config.validation_shards
    other = read_manifest(where) if where else None
    split = validation_split(manifest, config.validation_split, other=other, where=where)
    if split is None:
        _check_without_validation(config, manifest)
    if other is not None and split is not None:
        assign_lanes(
            other,
            split.name,
            num_workers=num_workers,
            global_batch_size=config.global_batch_size,
            remainder=PAD,
        )
    return min(member.manifest.num_lanes for member in data.members)


def _open_data(config: TrainConfig, num_workers: int) -> Mixture:
    """Return the data sets as the first worker reads them."""
    options = ReadOptions(
        image_size=config.image_size,
        remainder=config.remainder,
        bucket=config.bucket,
        balance=config.balance,
        feed=config.feed,
    )
    return open_mixture(
        config.data_sets,
        split=config.train_split,
        global_batch_size=config.global_batch_size,
        place=WorkerPlace(0, num_workers),
        options=options,
    )


def _check_without_validation(config: TrainConfig, manifest: Manifest) -> None:
    """Check that nothing needs a validation split.

    Raises:
      UserError: something does.
    """
    flags = [f"--validate_every={config.validate_every_steps}"] * bool(config.validate_every_steps)
    if config.stop.patience and config.stop.figure and config.stop.figure.is_validation:
        flags.append(f"--monitor={config.stop.monitor}")
    if config.keep_best and watched_figure(config.keep_best, "keep_best").is_validation:
        flags.append(f"--keep_best={config.keep_best}")
    if flags:
        names = ", ".join(split.name for split in manifest.splits)
        raise UserError(
            f"{flags[0]} needs a validation split; these shards have the splits {names}: write "
            "them with --split=train:0.9,validation:0.1, or give --validation_shards"
        )


def _check_built_in(
    model: str, inputs: Sequence[Feature], targets: Sequence[Feature], feed: FeedOptions
) -> None:
    """Check that a built-in model finds what it needs among the features.

    Raises:
      UserError: it needs an image, a text or a target that is not there.
    """
    name = built_in_name(model)
    if not name:
        return
    shown = ", ".join(feature.name for feature in inputs)
    if name in _IMAGE_MODELS and all(feature.kind != IMAGE for feature in inputs):
        raise UserError(
            f"model '{model}' needs images; these shards hold {shown}: take "
            "--model=mlp or one of your own"
        )
    if not targets:
        raise UserError(
            f"model '{model}' has nothing to predict: these shards have no feature '{LABEL}' "
            f"(they have {shown}): name the targets with --target=NAME, write with "
            "--label_feature=NAME, or give a --model of your own"
        )
    masks = [target.name for target in targets if target.kind == IMAGE]
    if name == "unet" and len(masks) != 1:
        raise UserError(
            f"model '{model}' predicts a mask, which is an image; the targets are "
            f"{', '.join(target.name for target in targets)}: name the mask with --target=NAME"
        )
    if name == "unet" and masks[0] not in feed.masks:
        raise UserError(
            f"model '{model}' predicts the classes of pixels, and image '{masks[0]}' is read as "
            f"colours: give --mask={masks[0]}"
        )
    if name != "unet" and masks:
        raise UserError(
            f"model '{model}' cannot predict the image '{masks[0]}': take --model=unet or one of "
            "your own"
        )


def check_resume(config: TrainConfig) -> None:
    """Check that a run that will resume has the steps of the run before.

    Raises:
      UserError: one of STEP_FIELDS differs; the trainer would refuse it too, after its start.
    """
    if not open_folder(f"{config.run_dir}/{CHECKPOINTS_FOLDER}").sizes():
        return
    before = _config_before(config.run_dir)
    for name in STEP_FIELDS if before is not None else ():
        known, now = getattr(before, name), getattr(config, name)
        if known != now:
            raise UserError(
                f"run_dir '{config.run_dir}' holds checkpoints "
                f"{step_field_conflict(name, known, now)}"
            )


def _config_before(run_dir: str) -> TrainConfig | None:
    """Return the configuration of the run before; None if job.json holds none of this version."""
    try:
        text = (open_folder(run_dir).read(JOB_FILE) or b"").decode()
        return job_from_json(text, where=run_dir)[0].train
    except (UserError, ValueError):
        return None


def training_notes(config: TrainConfig, *, num_workers: int) -> list[str]:
    """Return what a person should know of a training before it starts, one sentence each."""
    data = _open_data(config, num_workers)
    manifest = data.first.manifest
    notes = [data.sentence()] if data.is_mixed else []
    if config.accumulate > 1:
        part = config.global_batch_size // config.accumulate
        notes.append(
            f"a step has {config.accumulate} × {part:,} = {config.global_batch_size:,} records, "
            "computed part by part, and exchanges gradients once"
        )
    notes += _imbalance_notes(manifest.num_lanes, num_workers)
    notes += _unused_inputs(config, data.first.spec)
    notes += _cut_lists(config, manifest)
    own = validation_split(manifest, config.validation_split)
    if own is None and not config.validation_shards:
        names = ", ".join(split.name for split in manifest.splits)
        notes.append(
            f"no validation: these shards have the splits {names}; write them with "
            "--split=train:0.9,validation:0.1 to see val_loss after each epoch"
        )
    if config.stop.figure:
        notes.append(f"early stopping by {config.stop.figure.words()}")
    if config.keep_best:
        kept = watched_figure(config.keep_best, "keep_best").words()
        notes.append(f"{BEST_MODEL_FILE} is the model of the best {kept}")
    if config.image_size is None and (varying := _varying_images(config, manifest)):
        notes.append(varying)
    return notes


def _imbalance_notes(num_lanes: int, num_workers: int) -> list[str]:
    """Return a note if a step takes notably longer than with evenly shared lanes."""
    longer = imbalance(num_lanes, num_workers)
    if longer < _NOTABLE_IMBALANCE:
        return []
    fewer, more = (
        next((count for count in counts if num_lanes % count == 0), 0)
        for counts in (range(num_workers, 1, -1), range(num_workers, num_lanes + 1))
    )
    even = " or ".join(str(count) for count in (fewer, more) if count)
    return [
        f"{num_workers} workers share {num_lanes} lanes: a step waits for a worker with "
        f"{-(-num_lanes // num_workers)} of them, and computes {1 + longer:.2f} times as long as "
        f"with equal parts; {even} workers would share them evenly"
    ]


def _unused_inputs(config: TrainConfig, spec: InputSpec) -> list[str]:
    """Return a note if a built-in model of images leaves other inputs unused."""
    if config.map or built_in_name(config.model) not in _IMAGE_MODELS:
        return []
    # The models take the first image.
    image = next((feature.name for feature in spec.inputs if feature.kind == IMAGE), "")
    others = [feature.name for feature in spec.inputs if feature.name != image]
    if not others:
        return []
    return [
        f"model '{config.model}' uses '{image}' alone, and not {', '.join(others)}: give "
        f"--inputs={image} to read no more than that, or a --model of your own"
    ]


def _cut_lists(config: TrainConfig, manifest: Manifest) -> list[str]:
    """Return a note for each list that --pad cuts, as far as the statistics tell."""
    statistics, notes = manifest.split(config.train_split).statistics, []
    for name, length in config.feed.pad.items():
        found = statistics.feature(name) if statistics else None
        counts = found.length if found and found.minimum is not None else None
        if length != LONGEST and counts is not None and counts[2] > length:
            notes.append(
                f"lists of '{name}' are cut at {length}: the longest has {counts[2]:,} values, "
                f"the mean is {counts[1]:,.1f}"
            )
    return notes


def _varying_images(config: TrainConfig, manifest: Manifest) -> str:
    """Return a note on images that are resized because they differ in size, or an empty text."""
    shapes = [feature.shape for feature in manifest.features if feature.kind == "image"]
    if not shapes or all(shapes[0][:2]):
        return ""
    split = manifest.split(config.train_split)
    sides: list[int] = []
    with contextlib.suppress(JobError, ValueError):  # the workers name what cannot be read
        for sample in first_records(config.shards, split, _SAMPLED_IMAGES):
            sides += image_shape(image_of(sample, manifest) or b"")[:2]
    span = f" from {min(sides)} to {max(sides)} px" if sides else " in size"
    return f"images vary{span}: using {DEFAULT_SIDE}×{DEFAULT_SIDE}, see --image_size"
