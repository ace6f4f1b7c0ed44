"""What the configuration changes of a model: its precision, learning rate and clipping."""

import keras

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Split
from tenfold.models.loss_scaling import finite_on_all
from tenfold.models.train_config import TrainConfig

DEFAULT_LEARNING_RATE = 1e-3


def set_precision(precision: str) -> None:
    """Sets the policy that layers made from now on compute in."""
    keras.mixed_precision.set_dtype_policy(precision)


def tune_optimizer(model: keras.Model, config: TrainConfig, *, total_steps: int) -> None:
    """Sets the optimizer's learning rate, its schedule and its clipping, where they are given.

    Raises:
      UserError: the choices do not go together.
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
    alone = optimizer.check_finite
    optimizer.check_finite = lambda gradients: finite_on_all(alone(gradients))


def _peak(optimizer: keras.Optimizer, config: TrainConfig) -> float:
    """The highest learning rate: the given one, else the model's own."""
    if config.learning_rate is not None:
        return config.learning_rate
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))  # it may be mirrored


def _schedule(
    config: TrainConfig, peak: float, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Keras's own schedules, so that a saved model loads without tenfold."""
    falling = total_steps - config.warmup_steps
    if falling < 1:
        raise UserError(
            f"warmup_steps is {config.warmup_steps}, but the run has only {total_steps} steps"
        )
    if config.schedule == "cosine":
        warm = config.warmup_steps
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warm else peak, falling, warmup_target=peak if warm else None, warmup_steps=warm
        )
    if config.warmup_steps:
        raise UserError(f"warmup_steps goes with --schedule=cosine, not with {config.schedule}")
    return keras.optimizers.schedules.PolynomialDecay(peak, falling, end_learning_rate=0.0)


def _clip(optimizer: keras.Optimizer, config: TrainConfig) -> None:
    if config.precision == "mixed_float16":
        raise UserError(
            "clip_norm does not go with mixed_float16, whose gradients are scaled: "
            "take --precision=mixed_bfloat16"
        )
    optimizer.clipnorm = optimizer.clipvalue = None
    optimizer.global_clipnorm = config.clip_norm


def balanced_weights(split: Split) -> tuple[float, ...]:
    """Returns a weight per class, n / (classes × n of the class), so that all weigh alike.

    A class without records has weight 0. The formula is scikit-learn's ``balanced``.

    Raises:
      UserError: the split's records have no classes.
    """
    counts = split.label_counts
    if not counts:
        raise UserError(f"class_weights: the records of split '{split.name}' have no classes")
    present = sum(count > 0 for count in counts)
    return tuple(sum(counts) / (present * count) if count else 0.0 for count in counts)
