"""Names of the files and folders that the trainer writes into a run directory."""

from typing import Final

METRICS_FILE: Final = "metrics.jsonl"
MODEL_FILE: Final = "model.keras"
BEST_MODEL_FILE: Final = "best.keras"
CHECKPOINTS_FOLDER: Final = "checkpoints"
TENSORBOARD_FOLDER: Final = "tensorboard"
