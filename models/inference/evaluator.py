"""Evaluation: the loss and the metrics of a model over a split, on all workers together."""

import time
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import Manifest
from tenfold.data.reading.batches import evaluation_batches, feed_of
from tenfold.data.reading.locating.read_errors import explain_errors
from tenfold.data.reading.read_options import WorkerPlace
from tenfold.data.reading.receipts import Receipt, make_receipt
from tenfold.models.inference.inference_config import InferenceConfig
from tenfold.models.inference.inference_reading import inference_reading
from tenfold.models.inference.load_model import ModelFile, input_size, load_model
from tenfold.models.inference.progress import InferenceReporter
from tenfold.models.model_registry import find_attribute
from tenfold.models.training.build import build_metrics
from tenfold.models.training.check_model import naming_misfit
from tenfold.models.training.collectives import WorkerCollectives
from tenfold.models.training.measuring.metric_totals import metric_results
from tenfold.models.training.steps import EvaluateSteps


@dataclass(frozen=True)
class EvaluationResult:
    """The figures of a model over a split.

    Attributes:
      loss: the mean loss of the records.
      metrics: the metrics by name.
      receipt: which records were read.
    """

    loss: float
    metrics: dict[str, float]
    receipt: Receipt


class Evaluator:
    """A model under a strategy, and the split that it is evaluated on.

    All workers must call the same methods in the same order, because they communicate.

    Args:
      config: what is evaluated.
      manifest: the manifest of the shards.
      file: the file with the model's weights.
      strategy: the strategy that joins the workers.
      place: which worker this is.
      reporter: gets the progress.

    Raises:
      UserError: the model has neither a loss nor metrics, or does not fit the records.
    """

    def __init__(
        self,
        config: InferenceConfig,
        manifest: Manifest,
        file: ModelFile,
        *,
        strategy: tf.distribute.Strategy,
        place: WorkerPlace,
        reporter: InferenceReporter,
    ) -> None:
        with strategy.scope():
            self.model = load_model(file, manifest)
            _compile(self.model, config, file)
            self._reading = inference_reading(
                config, manifest, file, image_size=input_size(self.model), place=place
            )
            with naming_misfit(file.path):
                build_metrics(self.model, feed_of(self._reading).element_spec)
        self._run = EvaluateSteps(self.model, strategy)
        self._strategy = strategy
        self._reporter = reporter
        self.collectives = WorkerCollectives(
            strategy, worker=place.index, num_workers=place.num_workers
        )

    def wait(self, seconds: float) -> None:
        """Wait, and report it: the watchdog must not take the wait for a hang."""
        self._reporter.enter("evaluation")
        time.sleep(seconds)

    def evaluate(self) -> EvaluationResult:
        """Evaluate the model with its present weights, every record once.

        Raises:
          JobError: a record cannot be read, or some were not read exactly once.
        """
        total = self._reading.evaluation_steps
        loss, records, fingerprint = 0.0, 0, 0
        batches = self._strategy.distribute_datasets_from_function(
            lambda _: evaluation_batches(self._reading)
        )
        with explain_errors():
            for step, batch in enumerate(batches, 1):
                batch_loss, count, batch_fingerprint = self._run(batch)
                loss, records = loss + batch_loss, records + count
                fingerprint += batch_fingerprint
                self._reporter.step(step, total, records)
        records, fingerprint = self.collectives.sum_ints(records, fingerprint % 2**64)
        split = self._reading.manifest.split(self._reading.split)
        receipt = make_receipt(split, records=records, fingerprint=fingerprint)
        if not receipt.exact:
            raise JobError(receipt.sentence())
        metrics = {name: float(value) for name, value in metric_results(self.model).items()}
        self.model.reset_metrics()
        mean_loss = self.collectives.sum_float(loss) / max(1, records)
        return EvaluationResult(mean_loss, metrics, receipt)


def _compile(model: keras.Model, config: InferenceConfig, file: ModelFile) -> None:
    """Give the model the loss and metrics that are asked for in place of its own.

    Raises:
      UserError: there is none of them, or one of a name that Keras does not know.
    """
    if not config.loss and not config.metrics:
        if not model.compiled:
            raise UserError(
                f"model '{file.path}' is not compiled, so there is nothing to measure: give "
                "--loss and --metric, as --loss=sparse_categorical_crossentropy --metric=accuracy"
            )
        return
    loss = config.loss or (model.loss if model.compiled else None)
    if loss is None:
        raise UserError(f"model '{file.path}' has no loss: give --loss beside --metric")
    metrics = [_find_metric(name, config.working_dir) for name in config.metrics]
    try:
        model.compile(optimizer="sgd", loss=loss, metrics=metrics)
        if isinstance(loss, str):
            keras.losses.get(loss)
    except ValueError as error:
        raise UserError(f"--loss={config.loss}: Keras knows no loss of this name") from error


def _find_metric(name: str, working_dir: str) -> Any:
    if ":" in name:
        found = find_attribute(name, working_dir=working_dir, what="metric")
        return found() if isinstance(found, type) else found
    try:
        keras.metrics.get(name)
    except ValueError as error:
        raise UserError(
            f"--metric={name}: Keras knows no metric of this name; give one of Keras, as AUC or "
            "MeanAbsoluteError, or your own, module:name or file.py:name"
        ) from error
    return name
