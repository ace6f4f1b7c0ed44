"""The model that is evaluated or predicts: of a run directory, or of a .keras file."""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import Manifest
from tenfold.data.format.statistics.feature_statistics import SplitStatistics
from tenfold.data.reading.feeding.feed import Feed, load_map
from tenfold.data.reading.feeding.input_spec import input_spec
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.models.model_spec import ModelSpec
from tenfold.models.output_files import CHECKPOINTS_FOLDER, MODEL_FILE
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.build import build_model, make_model_spec
from tenfold.models.training.checkpoints.checkpoint import (
    Checkpoint,
    checkpoint_from_bytes,
    checkpoint_names,
)


@dataclass(frozen=True)
class ModelFile:
    """The bytes that hold a model's weights, and what else is known of the model.

    Attributes:
      path: the path or URL of the file.
      data: its content.
      train: the configuration of the run that made it; None for a file outside of a run.
    """

    path: str
    data: bytes
    train: TrainConfig | None = None

    @property
    def digest(self) -> str:
        """A hash of the content."""
        return hashlib.sha256(self.data).hexdigest()[:32]

    @property
    def is_checkpoint(self) -> bool:
        """Whether the file is a checkpoint of the trainer."""
        return self.path.endswith(".npz")


def read_model_file(path: str, read_train: Callable[[str], TrainConfig | None]) -> ModelFile:
    """Return the file with the weights that `path` names.

    Args:
      path: a ``.keras`` file, or a run directory: its ``model.keras``, else the newest checkpoint.
      read_train: returns the configuration of a run directory; None if it is none.

    Raises:
      UserError: there is no such file, or the run directory has no model yet.
    """
    if path.endswith(".keras"):
        where, _, name = path.rpartition("/")
        data = open_folder(where or ".").read(name)
        if data is None:
            raise UserError(f"model '{path}' does not exist")
        return ModelFile(path, data)
    train = model_without_weights(path, read_train).train
    data = open_folder(path).read(MODEL_FILE)
    if data is not None:
        return ModelFile(f"{path}/{MODEL_FILE}", data, train)
    checkpoints = open_folder(f"{path}/{CHECKPOINTS_FOLDER}")
    for name in checkpoint_names(checkpoints):
        data = checkpoints.read(name)
        if data is not None:
            return ModelFile(f"{path}/{CHECKPOINTS_FOLDER}/{name}", data, train)
    raise UserError(f"run directory '{path}' has neither {MODEL_FILE} nor a checkpoint yet")


def model_without_weights(path: str, read_train: Callable[[str], TrainConfig | None]) -> ModelFile:
    """Return what is known of the model of a run directory before it has a checkpoint.

    Raises:
      UserError: `path` is not the run directory of a training.
    """
    train = read_train(path)
    if train is None:
        raise UserError(
            f"model '{path}' is neither a .keras file nor the run directory of a training"
        )
    return ModelFile(path, b"", train)


def load_model(file: ModelFile, manifest: Manifest) -> keras.Model:
    """Return the model, built and with the file's weights, in the current strategy's scope.

    The model of a run is built by its model function, as in training. A file outside of a run is
    loaded in Keras's safe mode, which runs no code from the file.

    Args:
      file: the file with the weights.
      manifest: the manifest of the shards that the model is fed.

    Raises:
      UserError: the model cannot be built or loaded, or its weights are of another model.
    """
    if file.train is None:
        return _load_keras(file)
    # The optimizer is not used: its settings might not fit a run without steps.
    train = replace(file.train, schedule="constant", warmup_steps=0, clip_norm=None)
    model = build_model(train, _model_spec(file.train, manifest))
    try:
        _assign(model, file)
    except ValueError as error:
        raise UserError(
            f"{file.path} does not fit model '{file.train.model}' as these shards make it "
            f"({_first_line(error)}): give shards with the classes and features of the training"
        ) from error
    return model


def input_size(model: keras.Model) -> tuple[int, int] | None:
    """Return (height, width) of the images that a model takes; None where it does not say."""
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or []]
    images = [shape for shape in shapes if len(shape) == 4 and None not in shape[1:3]]
    return (images[0][1], images[0][2]) if len(images) == 1 else None


def _load_keras(file: ModelFile) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, MODEL_FILE)
        local.write_bytes(file.data)
        try:
            return keras.saving.load_model(local, safe_mode=True)
        except Exception as error:  # Keras raises what its layers raise
            raise UserError(
                f"model '{file.path}' cannot be loaded ({_first_line(error)}): give the run "
                "directory of its training as --model, whose model function builds it"
            ) from error


def _assign(model: keras.Model, file: ModelFile) -> None:
    """Set the weights of a built model, if the file has any.

    Raises:
      ValueError: they are of another model.
    """
    if not file.data:
        return
    if not file.is_checkpoint:
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, MODEL_FILE)
            local.write_bytes(file.data)
            model.load_weights(local)
        return
    assign_checkpoint(model, checkpoint_from_bytes(file.data))


def assign_checkpoint(model: keras.Model, checkpoint: Checkpoint) -> None:
    """Set the weights of a built model to those of a checkpoint.

    Raises:
      ValueError: the checkpoint is of another model.
    """
    # The model's variables come first, in this order; then those of the optimizer and metrics.
    for variable, value in zip(model.variables, checkpoint.values, strict=False):
        if tuple(variable.shape) != value.shape:
            raise ValueError(
                f"variable '{variable.path}' has shape {tuple(variable.shape)}, in the checkpoint "
                f"{value.shape}"
            )
        variable.assign(value)


def _model_spec(train: TrainConfig, manifest: Manifest) -> ModelSpec:
    feed = Feed(
        input_spec(manifest, train.image_size, train.feed),
        load_map(train.map, working_dir=train.working_dir),
    )
    return make_model_spec(train, feed, steps_per_epoch=1, statistics=_statistics(train, manifest))


def _statistics(train: TrainConfig, manifest: Manifest) -> SplitStatistics | None:
    """Return the statistics of the training split; None where there are none.

    The built-in models choose layers by them, so they must be those of the training's shards. The
    shards that the model is fed stand in where those are gone.
    """
    with contextlib.suppress(UserError, JobError, OSError):
        manifest = read_manifest(train.shards)
    splits = {split.name: split for split in manifest.splits}
    return splits[train.train_split].statistics if train.train_split in splits else None


def _first_line(error: Any) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
