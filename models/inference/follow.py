"""Evaluate the checkpoints of a training while it runs."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tenfold.data.reading.read_options import Position
from tenfold.data.storage.folder import Folder
from tenfold.models.inference.evaluator import EvaluationResult, Evaluator
from tenfold.models.inference.load_model import assign_checkpoint
from tenfold.models.training.checkpoints.checkpoint import (
    checkpoint_from_bytes,
    checkpoint_name,
    checkpoint_names,
    checkpoint_position,
)

_POLL_S: Final = 2.0
_NONE: Final = Position()  # no checkpoint is made before the first step


@dataclass(frozen=True)
class EvaluatedCheckpoint:
    """A checkpoint and its figures."""

    position: Position
    result: EvaluationResult


def follow(
    evaluator: Evaluator,
    checkpoints: Folder,
    *,
    is_chief: bool,
    has_ended: Callable[[], bool],
    on_result: Callable[[EvaluatedCheckpoint], None],
) -> list[EvaluatedCheckpoint]:
    """Evaluate the newest checkpoint again and again, until the training has ended.

    A checkpoint that is older than the newest is not evaluated: evaluation may take longer than
    training between two checkpoints. All workers call this function; the chief decides.

    Args:
      evaluator: the model and the split.
      checkpoints: the folder of the training's checkpoints.
      is_chief: whether this worker decides.
      has_ended: whether the training has ended; asked on the chief alone.
      on_result: called with each result.

    Returns:
      All results, in the order of the checkpoints.
    """
    results: list[EvaluatedCheckpoint] = []
    done = _NONE
    while True:
        found, ended = _NONE, False
        if is_chief:
            ended = has_ended()  # before the look: the last checkpoint is there when it has ended
            found = next(map(checkpoint_position, checkpoint_names(checkpoints)), _NONE)
        epoch, step, over = evaluator.collectives.sum_ints(found.epoch, found.step, int(ended))
        position = Position(epoch, step)
        if position not in (done, _NONE):
            done = position
            if _assign(evaluator, checkpoints, position):
                results.append(EvaluatedCheckpoint(position, evaluator.evaluate()))
                on_result(results[-1])
            continue  # the next one may be there already
        if over:
            return results
        evaluator.wait(_POLL_S)


def _assign(evaluator: Evaluator, checkpoints: Folder, position: Position) -> bool:
    """Set the model's weights; return False if a worker does not find the checkpoint any more."""
    checkpoint = None
    try:
        data = checkpoints.read(checkpoint_name(position))
        checkpoint = checkpoint_from_bytes(data) if data else None
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError):
        pass  # damaged: the trainer would skip it too
    if evaluator.collectives.any_worker(checkpoint is None):
        return False
    assert checkpoint is not None
    assign_checkpoint(evaluator.model, checkpoint)
    return True
