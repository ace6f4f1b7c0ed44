"""Where a value that is not finite first appeared: steps are repeated, then one is looked at.

Nothing is recorded while training runs well. When a loss or weight is not finite, the run goes
back to its newest checkpoint (or its beginning) and repeats the steps up to the suspect one. The
order of records is fixed, so the same values appear again. The suspect step is then computed
eagerly on a copy of the model outside of the strategy, where every layer's output can be seen.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from tenfold.data.reading.feeding.feed import Fed, unpack
from tenfold.data.reading.feeding.nested import named_leaves
from tenfold.data.reading.locating.batch_records import step_records
from tenfold.data.reading.mixing.mixed_batches import mixed_batches
from tenfold.data.reading.read_options import Position
from tenfold.models.training.session import Session

# The places of a step in the order of its computation. A worker reports the earliest.
_INPUT, _LAYER, _LOSS, _GRADIENT, _NOWHERE = range(5)
# Offending records that each worker reports.
_MAX_POSITIONS: Final = 8


@dataclass(frozen=True)
class Origin:
    """Where a value that is not finite first appeared: the fields of `NotFiniteFinding`."""

    step: int
    epoch: int
    what: str
    where: str
    records: tuple[str, ...]


@dataclass
class _Place:
    """Where one worker's part of a step is first not finite.

    Attributes:
      kind: one of the places of a step.
      index: which input, layer call or variable it is.
      records: number of this worker's records that are affected.
      positions: positions of the first of them in this worker's part of the batch.
    """

    kind: int = _NOWHERE
    index: int = 0
    records: int = 0
    positions: list[int] = field(default_factory=list)

    def to_row(self) -> list[float]:
        missing = _MAX_POSITIONS - len(self.positions)
        return [self.kind, self.index, self.records, *self.positions, *[-1.0] * missing]


def _place_from_row(row: Sequence[float]) -> _Place:
    kind, index, records, *positions = map(int, row)
    return _Place(kind, index, records, [position for position in positions if position >= 0])


def find_origin(session: Session, *, step: int) -> Origin | None:
    """Return where a value that is not finite first appeared; None if it does not appear again.

    Every worker calls this. The state of the session is that of `step` or before afterwards.

    Args:
      session: a session; it is rewound.
      step: the step, counted from 1, whose loss or updated weights are not finite.
    """
    session.rewind()
    session.start_reading()
    while session.steps_done < step - 2:
        missing = step - 2 - session.steps_done
        session.run_steps(min(missing, session.max_steps), stop=False, save=False)
    weights, position = session.weights(), session.state.position
    if session.steps_done < step - 1:
        session.run_steps(1, stop=False, save=False)
        if updated := session.not_finite_weight():
            # The step before had a finite loss, and a gradient or update that was not.
            return _inspect(session, weights, position, updated)
        weights, position = session.weights(), session.state.position
    origin = _inspect(session, weights, position, "")
    if origin is None and session.steps_done < step:
        session.run_steps(1, stop=False, save=False)
        if updated := session.not_finite_weight():
            origin = _inspect(session, weights, position, updated)
    return origin


def _inspect(
    session: Session, weights: Sequence[Any], position: Position, updated: str
) -> Origin | None:
    """Look at the step at `position`, over all workers.

    Args:
      session: the session.
      weights: the values of the model's variables before the step.
      position: the step.
      updated: path of a weight that is not finite after the step; empty where all are finite.
    """
    step = _Step(session, weights)
    with suppress(ValueError, TypeError, AttributeError, tf.errors.OpError):
        # A model with a training step of its own may not be computable in this way.
        step.compute(position)
    places = [_place_from_row(row) for row in session.gather(step.place.to_row())]
    first = min(places, key=lambda place: (place.kind, place.index))
    if first.kind == _NOWHERE and not updated:
        return None
    names = step_records(session.data, position)
    counts = [int(count) for (count,) in session.gather([session.data.own_records(position)])]
    starts = accumulate(counts, initial=0)
    same = [(start, place) for start, place in zip(starts, places) if _is_same(place, first)]  # noqa: B905
    offending = tuple(names[start + at] for start, place in same for at in place.positions)
    count = sum(place.records for _, place in same)
    what, where = step.describe(first, updated)
    if offending:
        where += f", for {count:,} of the {len(names):,} records of the step"
    done = position.epoch * session.data.steps_per_epoch + position.step
    return Origin(done + 1, position.epoch, what, where, offending or names)


def _is_same(one: _Place, other: _Place) -> bool:
    return (one.kind, one.index) == (other.kind, other.index)


class _Step:
    """One worker's part of a step, computed eagerly on a copy of the model.

    Attributes:
      place: where it is first not finite.
    """

    def __init__(self, session: Session, weights: Sequence[Any]) -> None:
        self._session = session
        self._weights = weights
        self._inputs: list[str] = []
        self._layers: list[str] = []
        self._variables: list[str] = []
        self.place = _Place()

    def compute(self, position: Position) -> None:
        """Compute the step at `position` and note its place."""
        model = self._session.copy_of_model(self._weights)
        self._variables = [variable.path for variable in model.trainable_variables]
        batches = mixed_batches(self._session.data, start=position)
        first = 0
        for batch in islice(batches, self._session.place.replicas):
            if not (count := int(tf.size(batch.fingerprints))):
                continue  # the step leaves out an empty part, too
            self._compute_replica(model, batch.fed, first)
            first += count

    def _compute_replica(self, model: keras.Model, fed: Fed, first: int) -> None:
        x, y, weight = unpack(fed)
        leaves = named_leaves(x, self._session.spec.inputs[0].name)
        self._inputs = [name for name, _ in leaves]
        for index, (_, value) in enumerate(leaves):
            self._note(_INPUT, index, _bad_records(value), first)
        self._layers = []
        with tf.GradientTape() as tape:
            with _watched_layers(lambda layer, outputs: self._note_layer(layer, outputs, first)):
                predicted = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight)
        if not np.isfinite(float(loss)):
            self._note(_LOSS, 0, np.zeros(0, bool), first)
        gradients = tape.gradient(loss, model.trainable_variables)
        # Backpropagation reaches the last variable first.
        for index, gradient in enumerate(reversed(gradients)):
            if gradient is not None and not _is_finite(gradient):
                self._note(_GRADIENT, index, np.zeros(0, bool), first)

    def _note_layer(self, layer: Any, outputs: Any, first: int) -> None:
        self._layers.append(f"'{layer.name}' ({type(layer).__name__})")
        for value in tf.nest.flatten(outputs):
            self._note(_LAYER, len(self._layers) - 1, _bad_records(value), first)

    def _note(self, kind: int, index: int, bad: Any, first: int) -> None:
        """Note a place where records from position `first` on are affected, if it is the first."""
        if kind in (_INPUT, _LAYER) and not bad.any():
            return
        here, place = _Place(kind, index), self.place
        if (kind, index) < (place.kind, place.index):
            place = self.place = here
        if _is_same(place, here):
            positions = [first + int(at) for at in np.flatnonzero(bad)]
            place.records += len(positions)
            place.positions = [*place.positions, *positions][:_MAX_POSITIONS]

    def describe(self, place: _Place, updated: str) -> tuple[str, str]:
        """Return what is not finite, and where, in words."""
        if place.kind == _INPUT:
            return "loss", f"first in feature '{_name(self._inputs, place.index)}'"
        if place.kind == _LAYER:
            return "loss", f"first in the output of layer {_name(self._layers, place.index)}"
        if place.kind == _LOSS:
            return "loss", "the outputs of the model are finite, their loss is not"
        if place.kind == _GRADIENT:
            path = _name(self._variables[::-1], place.index)
            return "gradient", f"first in that of '{path}'"
        return "weights", f"'{updated}' after the update; loss and gradients were finite"


def _name(names: Sequence[str], index: int) -> str:
    """Return the name at `index`; this worker has none if its own computation failed."""
    return names[index] if index < len(names) else str(index)


def _bad_records(value: Any) -> Any:
    """Return which records of a batch of values are not finite, bool [records]."""
    if isinstance(value, tf.RaggedTensor) and value.dtype.is_floating:
        value = value.to_tensor()
    if not isinstance(value, tf.Tensor) or not value.dtype.is_floating or not value.shape.rank:
        return np.zeros(0, bool)
    finite = np.isfinite(tf.cast(value, tf.float32).numpy())
    return ~finite.reshape(len(finite), -1).all(axis=1)


def _is_finite(gradient: Any) -> bool:
    dense = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    return bool(tf.reduce_all(tf.math.is_finite(dense)))


@contextmanager
def _watched_layers(note: Any) -> Iterator[None]:
    """Call ``note(layer, outputs)`` after every call of a layer, inner layers first.

    The class is changed, because a subclassed model does not list the calls that it makes.
    """
    original = keras.layers.Layer.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = original(self, *args, **kwargs)
        note(self, outputs)
        return outputs

    keras.layers.Layer.__call__ = call
    try:
        yield
    finally:
        keras.layers.Layer.__call__ = original
