"""The environment variables by which Tenfold tells a worker its place in a job."""

from typing import Final

INDEX_VARIABLE: Final = "TENFOLD_WORKER_INDEX"
NUMBER_VARIABLE: Final = "TENFOLD_NUM_WORKERS"
