"""Prediction: each worker reads its own shards and writes a file of predictions for each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Manifest, ShardInfo
from tenfold.data.reading.batches import feed_of, ordered_batches
from tenfold.data.reading.feeding.feature_specs import FeatureTensor
from tenfold.data.reading.feeding.feed import unpack
from tenfold.data.reading.locating.read_errors import explain_errors
from tenfold.data.reading.read_options import WorkerPlace
from tenfold.data.reading.records.record_reader import RecordBatch
from tenfold.data.storage.open_folder import open_folder
from tenfold.models.inference.inference_config import (
    INDEX_COLUMN,
    PREDICTION,
    SHARD_COLUMN,
    InferenceConfig,
    check_kept,
)
from tenfold.models.inference.inference_reading import inference_reading
from tenfold.models.inference.load_model import ModelFile, input_size, load_model
from tenfold.models.inference.prediction_files import PredictionFolder, PredictionJob
from tenfold.models.inference.progress import InferenceReporter


def predict(
    config: InferenceConfig,
    manifest: Manifest,
    file: ModelFile,
    *,
    place: WorkerPlace,
    reporter: InferenceReporter,
) -> None:
    """Predict the records of this worker's shards that have no file of predictions yet.

    Worker w of W takes shards w, w + W, w + 2W, … of the split. The workers do not wait for each
    other.

    Args:
      config: what is predicted, and where to.
      manifest: the manifest of the shards.
      file: the file with the model's weights.
      place: which worker this is.
      reporter: gets the progress.

    Raises:
      UserError: the model, the features to keep or the output folder cannot be used.
      JobError: a record cannot be read, or the storage fails.
    """
    model = load_model(file, manifest)
    split = manifest.split(config.split)
    job = _job(config, manifest, file, model)
    folder = PredictionFolder(open_folder(config.output), job, split.shards)
    own = {shard.name for shard in split.shards[place.index :: place.num_workers]}
    todo = [shard for shard in folder.missing() if shard.name in own]
    batch_size = max(1, config.global_batch_size // place.num_workers)
    total = sum(-(-shard.records // batch_size) for shard in todo)
    records = steps = 0
    if todo:
        outputs = _outputs(config, manifest, file, todo, model, job, batch_size)
        reporter.enter("prediction")
        with explain_errors():
            for shard in todo:
                with folder.open_file(shard) as written:
                    for index in range(0, shard.records, batch_size):
                        columns, count = next(outputs)
                        written.write(_with_place(columns, shard, index, count), count)
                        records += count
                        steps += 1
                        reporter.step(steps, total, records)
    folder.finish()


def _job(
    config: InferenceConfig, manifest: Manifest, file: ModelFile, model: keras.Model
) -> PredictionJob:
    columns = config.keep or {}
    check_kept(columns, manifest)
    for name in _output_names(model):
        if name in columns.values():
            raise UserError(
                f"--keep={name}: an output of the model has this name: give the feature another "
                f"column, as --keep={name}:own_{name}"
            )
    return PredictionJob(
        model=file.path,
        model_digest=file.digest,
        shards=config.shards,
        shards_digest=f"{manifest.split(config.split).fingerprint:016x}",
        split=config.split,
        image_size=config.image_size or input_size(model),
        columns=columns,
        format=config.output_format,
    )


def _output_names(model: keras.Model) -> tuple[str, ...]:
    """Return the columns of the model's outputs: their names where there are several."""
    outputs = getattr(model, "output_names", None) or []
    return tuple(outputs) if len(outputs) > 1 else (PREDICTION,)


def _outputs(
    config: InferenceConfig,
    manifest: Manifest,
    file: ModelFile,
    shards: Sequence[ShardInfo],
    model: keras.Model,
    job: PredictionJob,
    batch_size: int,
) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the columns of each batch of `ordered_batches`, and its number of records."""
    reading = inference_reading(
        config,
        manifest,
        file,
        image_size=job.image_size,
        global_batch_size=batch_size,
        also=tuple(job.columns),
    )
    batches, feed = ordered_batches(reading, shards, batch_size), feed_of(reading)

    @tf.function(autograph=False, input_signature=[batches.element_spec])
    def run(batch: RecordBatch) -> tuple[dict[str, Any], dict[str, Any]]:
        x, _, _ = unpack(feed(batch.features, batch.fingerprints, None))
        kept = {column: batch.features[name] for name, column in job.columns.items()}
        return kept, _named(model(x, training=False), model)

    for batch in batches:
        kept, outputs = run(batch)
        columns = {name: _array(value) for name, value in {**kept, **outputs}.items()}
        yield columns, len(batch.fingerprints)


def _named(outputs: Any, model: keras.Model) -> dict[str, Any]:
    """Return a model's outputs by column; an output of one number a record has no second axis."""
    if not isinstance(outputs, Mapping):
        values = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        names = _output_names(model)
        if len(names) != len(values):
            names = tuple(f"{PREDICTION}_{index}" for index in range(len(values)))
        outputs = dict(zip(names, values, strict=True))
    return {name: _without_single_axis(tf.convert_to_tensor(v)) for name, v in outputs.items()}


def _without_single_axis(value: tf.Tensor) -> tf.Tensor:
    value = tf.cast(value, tf.float32) if value.dtype in (tf.float16, tf.bfloat16) else value
    return value[:, 0] if value.shape.rank == 2 and value.shape[1] == 1 else value


def _with_place(
    columns: Mapping[str, Any], shard: ShardInfo, index: int, count: int
) -> dict[str, Any]:
    """Return columns of records of a shard from `index` on, with the columns of their place."""
    place = {SHARD_COLUMN: [shard.name] * count, INDEX_COLUMN: np.arange(index, index + count)}
    return {**place, **columns}


def _array(value: FeatureTensor) -> Any:
    if isinstance(value, tf.RaggedTensor):
        return value.to_list()
    array = value.numpy()
    return array.tolist() if array.dtype == object else array
