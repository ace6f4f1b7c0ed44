"""Precision, learning rate schedule, gradient clipping and class weights of a run."""

from collections.abc import Sequence

import keras

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import LABEL
from tenfold.data.planning.class_balance import class_weights
from tenfold.models.loss_scaling import finite_on_all
from tenfold.models.model_spec import ModelSpec
from tenfold.models.train_config import TrainConfig

DEFAULT_LEARNING_RATE = 1e-3


def set_precision(precision: str) -> None:
    """Set Keras's global dtype policy, which layers take when they are created."""
    keras.mixed_precision.set_dtype_policy(precision)


def tune_optimizer(model: keras.Model, config: TrainConfig, *, total_steps: int) -> None:
    """Apply the learning rate, the schedule and the clipping of `config`, as far as given.

    Args:
      model: a compiled model; its optimizer is changed in place.
      config: the configuration of the run.
      total_steps: steps of the whole run; a schedule ends at 0 after the last.

    Raises:
      UserError: the settings contradict each other.
    """
    optimizer = model.optimizer
    if config.schedule != "constant" or config.warmup_steps:
        optimizer.learning_rate = _schedule(config, _peak(optimizer, config), total_steps)
    elif config.learning_rate is not None:
        optimizer.learning_rate = config.learning_rate
    if config.clip_norm is not None:
        _clip(optimizer, config)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        _agree_on_overflow(optimizer)


def _agree_on_overflow(optimizer: keras.optimizers.LossScaleOptimizer) -> None:
    """Make all replicas skip a step together if the gradients of one replica overflow."""
    check_own = optimizer.check_finite
    optimizer.check_finite = lambda gradients: finite_on_all(check_own(gradients))


def _peak(optimizer: keras.Optimizer, config: TrainConfig) -> float:
    """Return the peak of the schedule: the given learning rate, else the model's own."""
    if config.learning_rate is not None:
        return config.learning_rate
    # float() of the variable fails where the strategy has mirrored it.
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def _schedule(
    config: TrainConfig, peak: float, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return one of Keras's own schedules, so that the saved model loads without Tenfold."""
    decay_steps = total_steps - config.warmup_steps
    if decay_steps < 1:
        raise UserError(
            f"warmup_steps is {config.warmup_steps}, but the run has only {total_steps} steps: "
            "lower --warmup_steps"
        )
    if config.schedule == "cosine":
        warmup = config.warmup_steps
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else peak,
            decay_steps,
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
        )
    if config.warmup_steps:
        raise UserError(
            f"--warmup_steps needs --schedule=cosine; the schedule is {config.schedule}"
        )
    return keras.optimizers.schedules.PolynomialDecay(peak, decay_steps, end_learning_rate=0.0)


def _clip(optimizer: keras.Optimizer, config: TrainConfig) -> None:
    if config.precision == "mixed_float16":
        raise UserError(
            "--clip_norm cannot be combined with mixed_float16, which scales the gradients: "
            "use --precision=mixed_bfloat16"
        )
    optimizer.clipnorm = optimizer.clipvalue = None
    optimizer.global_clipnorm = config.clip_norm


def check_class_weights(spec: ModelSpec) -> None:
    """Check that the targets are the classes of ``label`` alone, which weights are known for.

    Raises:
      UserError: they are something else.
    """
    if [(f.name, f.kind, f.shape) for f in spec.targets] not in (
        [(LABEL, "int64", ())],
        [("y", "int64", ())],
    ):
        names = ", ".join(feature.name for feature in spec.targets) or "no target"
        raise UserError(
            f"--class_weights=balanced weighs the classes of '{LABEL}', and the model predicts "
            f"{names}: weigh its records by --weight_feature or --map"
        )


def balanced_weights(counts: Sequence[float], *, split: str) -> tuple[float, ...]:
    """Return the weight of each class, so that every class contributes equally to the loss.

    Args:
      counts: the records of each class, or in a mixture their share.
      split: the name of the split, for the message.

    Raises:
      UserError: the records of the split have no class labels.
    """
    if not counts:
        raise UserError(
            f"--class_weights=balanced: the records of split '{split}' have no class labels"
        )
    return class_weights(counts)
