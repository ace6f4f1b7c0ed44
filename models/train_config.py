"""The configuration of the built-in trainer, which the launcher writes into job.json.

Free of TensorFlow and numpy: planning and `--help` import it.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.planning.lanes import DROP, check_remainder
from tenfold.data.planning.mixture_shares import DataShare, apportion
from tenfold.data.reading.decoding.augment_options import parse_augment
from tenfold.data.reading.decoding.decoders import AUTO, check_decoder
from tenfold.data.reading.feeding.feed_options import DEFAULT_FEED, FeedOptions
from tenfold.data.storage.cache_options import DEFAULT_CACHE, CacheOptions
from tenfold.models.run_rules.figures import WatchedFigure, watched_figure
from tenfold.models.run_rules.stop_rules import NO_RULES, StopRules

SCHEDULES: Final = ("constant", "linear", "cosine")
CLASS_WEIGHTS: Final = ("none", "balanced")
ON_NAN: Final = ("fail", "skip", "stop", "ignore")
PRECISIONS: Final = ("float32", "mixed_bfloat16", "mixed_float16")
GRADIENT_DTYPES: Final = ("float32", "bfloat16")
COLLECTIVES: Final = ("auto", "ring", "nccl")

# The fields that fix the records and the number of an epoch's steps: a run resumes only where
# they are equal.
STEP_FIELDS: Final = ("seed", "global_batch_size", "remainder", "bucket", "balance", "shares")


def step_field_conflict(name: str, before: object, now: object) -> str:
    """Return in words that a field of STEP_FIELDS has changed, and the way out."""
    if name != "shares":
        remedy = f"give --{name}={before} or a new --run_dir"
    else:
        shown = f"the shares {before}" if before else "one data set"
        remedy = f"give --shards of {shown}, or a new --run_dir"
    first, second = ("none" if value == "" else value for value in (before, now))
    return f"with {name} {first}, this run has {second}: {remedy}"


# The fields that a resumed run may change: the trainer tells that they have changed.
TUNING_FIELDS: Final = (
    "epochs", "learning_rate", "schedule", "warmup_steps", "clip_norm", "class_weights",
    "precision",
)  # fmt: skip

_CHOICES: Final = {
    "schedule": SCHEDULES,
    "class_weights": CLASS_WEIGHTS,
    "precision": PRECISIONS,
    "collective": COLLECTIVES,
    "gradient_dtype": GRADIENT_DTYPES,
    "on_nan": ON_NAN,
}


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of the built-in trainer; the same on every worker.

    Attributes:
      shards: the folder or URL that holds the manifest.
      share: the share of these shards in each batch, among those of `others`.
      others: further shards of a mixture, with their shares.
      run_dir: the run directory, an absolute path or a URL.
      model: a built-in name, ``module:function`` or ``file.py:function``.
      epochs: passes over the training split.
      global_batch_size: records per step, of all workers together.
      seed: of the record order, the augmentation and the model.
      image_size: (height, width); None takes the size of the images where all are equal,
        else 224 × 224.
      learning_rate: None takes the model's own.
      schedule: one of SCHEDULES; all but ``constant`` fall to 0 at the end of the last epoch.
      warmup_steps: steps in which the learning rate rises from 0.
      clip_norm: upper bound of the norm of the whole gradient, None for none.
      class_weights: one of CLASS_WEIGHTS.
      precision: one of PRECISIONS, a Keras dtype policy.
      on_nan: one of ON_NAN: what happens when the loss or a weight is not finite.
      jit_compile: compile the steps with XLA.
      callbacks: the user's Keras callbacks, as ``module:name``.
      decoder: one of DECODERS or AUTO.
      augment: see `data.reading.decoding.augment_options`; empty for none.
      remainder: see `data.reading.read_options.ReadOptions`.
      bucket, balance: see `data.reading.read_options.ReadOptions`.
      feed: which features are inputs, targets and weights, and how they are shaped.
      map: the user's function from features to what the model is fed, as ``module:name``; empty
        for none.
      salvage: the folder with the readable records of damaged shards; empty for none.
      accumulate: the parts of each step that are computed one after the other, and whose
        gradients are exchanged together; `global_batch_size` counts the records of all.
      gradient_dtype: one of GRADIENT_DTYPES, in which gradients are exchanged.
      steps_per_execution: steps per call into TensorFlow.
      collective: one of COLLECTIVES, how workers exchange gradients.
      pack_bytes: the exchange begins when this many bytes of gradients are there; 0: with all.
      collective_timeout_s: an exchange that takes longer fails; 0: it waits.
      checkpoint_every_steps: checkpoints within an epoch, 0 for none.
      checkpoint_every_s: the same by time, in seconds.
      keep_checkpoints: the newest checkpoints to keep.
      keep_best: the figure whose best model is kept, as ``val_loss``; empty for none.
      validate_every_steps: evaluations within an epoch, 0 for none.
      stop: what ends the run besides `epochs`.
      shuffle_buffer_bytes: memory for shuffling, per worker.
      cache, cache_dir, cache_bytes: see `data.storage.cache_options.CacheOptions`.
      train_split, validation_split: names of splits.
      validation_shards: the folder or URL of other shards to evaluate on; empty for `shards`.
      working_dir: the user's current folder, where modules are looked up.
    """

    shards: str
    run_dir: str
    share: float = 1.0
    others: tuple[DataShare, ...] = ()
    model: str = "cnn"
    epochs: int = 1
    global_batch_size: int = 64
    seed: int = 0
    image_size: tuple[int, int] | None = None
    learning_rate: float | None = None
    schedule: str = "constant"
    warmup_steps: int = 0
    clip_norm: float | None = None
    class_weights: str = "none"
    precision: str = "float32"
    on_nan: str = "fail"
    jit_compile: bool = False
    callbacks: tuple[str, ...] = ()
    decoder: str = AUTO
    augment: str = ""
    remainder: str = DROP
    bucket: str = ""
    balance: str = ""
    feed: FeedOptions = DEFAULT_FEED
    map: str = ""
    salvage: str = ""
    accumulate: int = 1
    gradient_dtype: str = GRADIENT_DTYPES[0]
    steps_per_execution: int = 16
    collective: str = COLLECTIVES[0]
    pack_bytes: int = 0
    collective_timeout_s: float = 0.0
    checkpoint_every_steps: int = 0
    checkpoint_every_s: float = 0.0
    keep_checkpoints: int = 2
    keep_best: str = ""
    validate_every_steps: int = 0
    stop: StopRules = NO_RULES
    shuffle_buffer_bytes: int = 256 * 10**6
    cache: str = DEFAULT_CACHE.mode
    cache_dir: str = DEFAULT_CACHE.folder
    cache_bytes: int = DEFAULT_CACHE.limit_bytes
    train_split: str = "train"
    validation_split: str = "validation"
    validation_shards: str = ""
    working_dir: str = ""

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "global_batch_size",
            "steps_per_execution",
            "keep_checkpoints",
            "accumulate",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(f"{name} is '{getattr(self, name)}', none of {', '.join(known)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UserError(f"clip_norm is {self.clip_norm}: it must be above 0")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UserError(f"learning_rate is {self.learning_rate}: it must be above 0")
        if self.validate_every_steps < 0:
            raise UserError(
                f"validate_every_steps is {self.validate_every_steps}: it must be at least 0"
            )
        if self.keep_best:
            watched_figure(self.keep_best, "keep_best")
        check_decoder(self.decoder)
        parse_augment(self.augment)
        check_remainder(self.remainder, self.balance)
        self.cache_options()
        if self.image_size is not None and min(self.image_size) < 1:
            raise UserError(f"image_size is {self.image_size}: both sides must be at least 1")

    @property
    def data_sets(self) -> tuple[DataShare, ...]:
        """The shards that are read for training, with their shares of each batch."""
        return DataShare(self.shards, self.share), *self.others

    @property
    def first_batch_size(self) -> int:
        """The records of each batch that come from `shards`."""
        return apportion(self.global_batch_size, [each.share for each in self.data_sets])[0]

    @property
    def folders(self) -> tuple[str, ...]:
        """All folders and URLs of shards that the run reads."""
        training = (each.folder for each in self.data_sets)
        return *training, *filter(None, (self.validation_shards,))

    @property
    def shares(self) -> str:
        """The shares of a mixture, as ``0.7, 0.3``; "" for one data set."""
        return ", ".join(f"{each.share:g}" for each in self.data_sets) if self.others else ""

    def cache_options(self) -> CacheOptions:
        """Return how shards on remote storage are cached on local disk."""
        return CacheOptions(self.cache, self.cache_dir, self.cache_bytes)

    def watched(self) -> tuple[WatchedFigure, ...]:
        """Return the figures that decide something, each once."""
        kept = watched_figure(self.keep_best, "keep_best") if self.keep_best else None
        return tuple(dict.fromkeys(figure for figure in (self.stop.figure, kept) if figure))

    def tuning(self) -> dict[str, Any]:
        """Return the values of TUNING_FIELDS."""
        return {name: getattr(self, name) for name in TUNING_FIELDS}

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as a JSON object."""
        return asdict(self)


def config_from_json(document: object) -> TrainConfig:
    """Return the configuration that `TrainConfig.to_json` gave.

    Raises:
      UserError: a field is missing, unknown, of another type or out of range.
    """
    try:
        return from_json_fields(TrainConfig, document)
    except ValueError as error:
        raise UserError(f"training configuration: {error}") from error
