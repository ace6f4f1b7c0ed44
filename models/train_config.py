"""What to train and how: the configuration that the launcher writes into job.json."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.reading.decoding.augment_options import parse_augment
from tenfold.data.reading.decoding.decoders import AUTO, DECODERS
from tenfold.data.storage.shard_cache import DEFAULT_CACHE, CacheOptions

SCHEDULES: Final = ("constant", "linear", "cosine")
CLASS_WEIGHTS: Final = ("none", "balanced")
PRECISIONS: Final = ("float32", "mixed_bfloat16", "mixed_float16")

_CHOICES: Final = {
    "schedule": SCHEDULES,
    "class_weights": CLASS_WEIGHTS,
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of the built-in trainer; the same on every worker.

    `shards` is the folder (or gs:// prefix) that holds the manifest. `model` is a built-in
    name, ``module:function`` or ``file.py:function``. `image_size` is (height, width);
    None takes that of the images where all are alike, else 224 × 224. `learning_rate`
    None takes the model's own; with a `schedule` it rises from 0 in `warmup_steps` and falls
    to 0 at the end of the last epoch. `clip_norm` bounds the norm of the whole gradient.
    `callbacks` name Keras callbacks of the user's. `checkpoint_every_steps` and
    `checkpoint_every_s`, where set, add checkpoints to the one at the end of each epoch.
    `salvage` is the folder where `data.salvage` has put what is left of damaged shards.
    `cache`, `cache_dir` and `cache_bytes` are those of `data.cache.CacheOptions`.
    `working_dir` is where the user stood: modules of ``module:function`` are looked up there.
    """

    shards: str
    run_dir: str
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
    jit_compile: bool = False
    callbacks: tuple[str, ...] = ()
    decoder: str = AUTO
    augment: str = ""
    salvage: str = ""
    steps_per_execution: int = 16
    checkpoint_every_steps: int = 0
    checkpoint_every_s: float = 0.0
    keep_checkpoints: int = 2
    shuffle_buffer_bytes: int = 256 * 10**6
    cache: str = DEFAULT_CACHE.mode
    cache_dir: str = DEFAULT_CACHE.folder
    cache_bytes: int = DEFAULT_CACHE.limit_bytes
    train_split: str = "train"
    validation_split: str = "validation"
    working_dir: str = ""

    def __post_init__(self) -> None:
        for name in ("epochs", "global_batch_size", "steps_per_execution", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(f"{name} is '{getattr(self, name)}', none of {', '.join(known)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UserError(f"clip_norm is {self.clip_norm}: it must be above 0")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UserError(f"learning_rate is {self.learning_rate}: it must be above 0")
        if self.decoder not in (AUTO, *DECODERS):
            raise UserError(f"decoder '{self.decoder}' is none of {', '.join((AUTO, *DECODERS))}")
        parse_augment(self.augment)
        self.cache_options()
        if self.image_size is not None and min(self.image_size) < 1:
            raise UserError(f"image_size is {self.image_size}: both sides must be at least 1")

    def cache_options(self) -> CacheOptions:
        """Returns how shards on remote storage come here."""
        return CacheOptions(self.cache, self.cache_dir, self.cache_bytes)

    def to_json(self) -> dict[str, Any]:
        """Returns the configuration as a JSON object."""
        return asdict(self)


def config_from_json(document: dict[str, Any]) -> TrainConfig:
    """Returns the configuration that `to_json` gave.

    Raises:
      UserError: it has a field that there is not.
    """
    known = {field.name for field in fields(TrainConfig)}
    unknown = sorted(set(document) - known)
    if unknown:
        raise UserError(f"training configuration: unknown {unknown[0]}; there are {sorted(known)}")
    tuples = {key: tuple(value) for key, value in document.items() if isinstance(value, list)}
    return TrainConfig(**{**document, **tuples})
