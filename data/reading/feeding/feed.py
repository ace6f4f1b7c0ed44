"""From the features of a batch to what a model is fed: ``(x,)``, ``(x, y)`` or ``(x, y, weight)``.

The user's function does it (--map), else the options of `FeedOptions` do.
"""

import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Final, TypeAlias

import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.reading.feeding.feature_specs import FeatureTensor, feature_specs
from tenfold.data.reading.feeding.input_spec import InputSpec
from tenfold.data.reading.feeding.nested import named_leaves, num_rows, zeros_like_spec
from tenfold.data.runtime.user_code import load_user_object

# From a dict of features, the seeds of the records where it takes two arguments, and their
# partners where it takes three, to x, (x, y) or (x, y, weight).
MapFunction: TypeAlias = Callable[..., Any]
# What Keras's training step takes: x alone, with y, or with y and the weights of the records.
Fed: TypeAlias = tuple[Any, ...]

# What the graph asserts of the result of the user's function.
ROW_RULE: Final = "must have a row for each record"

_MAX_PARTS: Final = 3
# A frame in the message of an error that AutoGraph raises again, and the line of code below it.
_FRAME: Final = re.compile(r'^ *File "(.+)", line (\d+), in ', re.M)
_FRAME_WITH_CODE: Final = re.compile(r'^ *File ".+", line \d+, in .*\n.*\n', re.M)


def load_map(name: str, *, working_dir: str = "") -> MapFunction | None:
    """Return the user's function called `name`; None for "".

    Args:
      name: ``module:function`` or ``file.py:function``.
      working_dir: the folder that the file is relative to.

    Raises:
      UserError: there is no such function, or the import of its module fails.
    """
    if not name:
        return None
    found = load_user_object(name, "map", working_dir=working_dir)
    if not callable(found):
        raise UserError(f"map '{name}' is {type(found).__name__}, not a function")
    function: MapFunction = found
    return function


@dataclass(frozen=True)
class Feed:
    """Turns the features of a batch into what a model is fed.

    Args:
      spec: the features that are read.
      function: the user's function; None takes targets, weights and lengths from `spec`.
      seed: seed of the run, which the seeds of its records follow from.
    """

    spec: InputSpec
    function: MapFunction | None = None
    seed: int = 0

    def __call__(
        self,
        features: Mapping[str, FeatureTensor],
        fingerprints: tf.Tensor,
        epoch: tf.Tensor | None,
        partners: tf.Tensor | None = None,
    ) -> Fed:
        """Return (x,), (x, y) or (x, y, weight) of a batch; runs in a graph.

        Args:
          features: each feature by its name, [n, …].
          fingerprints: of the records, int64 [n].
          epoch: int64 scalar; None outside of training.
          partners: for each record the index of another one of its lane in the batch, int64 [n];
            None outside of training. Needed if `num_arguments` is 3.

        Raises:
          UserError: the user's function fails, or returns something else.
        """
        shaped = {name: self._shaped(name, value) for name, value in features.items()}
        if self.function is None:
            return self._select(shaped)
        seeds = None if epoch is None else self._seeds(fingerprints, epoch)
        extra = (seeds, partners)[: self.num_arguments - 1]
        return _checked(self._mapped(shaped, *extra), fingerprints, self.name)

    @cached_property
    def num_arguments(self) -> int:
        """The arguments of the user's function: features, seeds, partners; 0 without one."""
        return 0 if self.function is None else min(3, max(1, _count_positional(self.function)))

    @property
    def name(self) -> str:
        """The name of the user's function, for messages."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @cached_property
    def element_spec(self) -> Fed:
        """The `tf.TypeSpec` of each part, with an open number of records."""
        specs = feature_specs(self.spec)

        def trace(features: Any, prints: tf.Tensor, epoch: tf.Tensor, others: tf.Tensor) -> Fed:
            return self(features, prints, epoch, others)

        numbers = tf.TensorSpec([None], tf.int64)
        traced = tf.function(trace, autograph=False).get_concrete_function(
            specs, numbers, tf.TensorSpec([], tf.int64), numbers
        )
        return tuple(
            tf.nest.map_structure(tf.type_spec_from_value, part)
            for part in traced.structured_outputs
        )

    @cached_property
    def unchanged(self) -> dict[str, str]:
        """The feature behind each tensor of x and y that the user's function passes on as it is.

        Of such tensors the classes and statistics are known. The name of a tensor does not tell:
        a function may return a new price as ``price``.
        """
        function = self.function
        if function is None:
            return {}
        sources: dict[str, set[str]] = {}

        @tf.autograph.experimental.do_not_convert
        def note(result: Any, features: Mapping[str, FeatureTensor]) -> None:
            names = {id(value): name for name, value in features.items()}
            parts = result if isinstance(result, tuple) else (result,)
            for part, value in zip(("x", "y"), parts, strict=False):
                for name, leaf in named_leaves(value, part):
                    sources.setdefault(name, set()).add(names.get(id(leaf), ""))

        @wraps(function)
        def noted(features: Mapping[str, FeatureTensor], *extra: tf.Tensor) -> Any:
            # The function may change the dict that it gets.
            given = dict(features)
            result = function(features, *extra)
            note(result, given)
            return result

        _ = replace(self, function=noted).element_spec
        # x and y may have tensors of one name, but only one of them unchanged.
        lone = {name: found for name, found in sources.items() if len(found) == 1}
        return {name: source for name, (source,) in lone.items() if source}

    def empty(self, size: int | tf.Tensor) -> Fed:
        """Return what stands for `size` records that are not trained on: zeros."""
        empty: Fed = zeros_like_spec(self.element_spec, size)
        return empty

    def _shaped(self, name: str, value: FeatureTensor) -> FeatureTensor:
        """Return a feature with its lists cut and padded, if they are to be."""
        length = self.spec.lengths.get(name)
        if length is None or not isinstance(value, tf.RaggedTensor):
            return value
        inner = value.values.shape[1:]
        dense = value.to_tensor(shape=[None, length, *inner])
        return tf.ensure_shape(dense, [None, length, *inner])

    def _select(self, features: Mapping[str, FeatureTensor]) -> Fed:
        """Return the inputs, the targets and the weights by the options."""
        spec = self.spec
        x = {feature.name: features[feature.name] for feature in spec.inputs}
        y = {feature.name: features[feature.name] for feature in spec.targets}
        fed: tuple[Any, ...] = (_lone(x),)
        if y:
            fed += (_lone(y),)
        if spec.weight_feature:
            if not y:
                raise UserError(
                    f"--weight_feature={spec.weight_feature} weighs the loss of targets, and "
                    "there is none: give --target"
                )
            fed += (tf.cast(features[spec.weight_feature], tf.float32),)
        return fed

    def _seeds(self, fingerprints: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Return the seeds of records, int64 [n, 2]: (fingerprint, seed × 2³² + epoch)."""
        run = tf.constant(self.seed % 2**31 << 32, tf.int64) + tf.cast(epoch, tf.int64)
        return tf.stack([fingerprints, tf.fill(tf.shape(fingerprints), run)], axis=1)

    def _mapped(self, features: dict[str, FeatureTensor], *extra: tf.Tensor | None) -> Any:
        """Call the user's function."""
        function = self.function
        assert function is not None
        try:
            return tf.function(function, autograph=True)(features, *extra)
        except UserError:
            raise
        except Exception as error:
            place = _place_in(error, function)
            raise UserError(
                f"map '{self.name}' fails{place}: {type(error).__name__}: {_first_line(error)} "
                f"(it gets the features {', '.join(features)})"
            ) from error


def unpack(fed: Fed) -> tuple[Any, Any, tf.Tensor | None]:
    """Return (x, y, weight), each of the last two None where it is missing.

    Bytes of pixels in x become float32 from 0 to 255, as late as in the model's step: until then
    a batch takes a quarter of the memory.
    """
    x, y, weight = (*fed, None, None)[:_MAX_PARTS]
    return tf.nest.map_structure(_as_float, x), y, weight


def _as_float(value: FeatureTensor) -> FeatureTensor:
    return tf.cast(value, tf.float32) if value.dtype == tf.uint8 else value


def _lone(values: dict[str, Any]) -> Any:
    """Return the only value, or all of them."""
    return next(iter(values.values())) if len(values) == 1 else values


def _count_positional(function: MapFunction) -> int:
    """Return the positional arguments of a function."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some callables written in C have no signature
        return 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in parameters)


def _checked(result: Any, fingerprints: tf.Tensor, name: str) -> Fed:
    """Return what the user's function returned as a tuple of parts, after checking it.

    Raises:
      UserError: it is not x, (x, y) or (x, y, weight), or a part has no row for each record.
    """
    fed = result if isinstance(result, tuple) else (result,)
    if not 1 <= len(fed) <= _MAX_PARTS:
        raise UserError(
            f"map '{name}' returns {len(fed)} values: return x, (x, y) or (x, y, weight)"
        )
    size = tf.size(fingerprints, tf.int64)
    checks = []
    for part, value in zip(("x", "y", "weight"), fed, strict=False):
        for leaf_name, leaf in named_leaves(value, part):
            if not isinstance(leaf, tf.Tensor | tf.RaggedTensor):
                raise UserError(
                    f"map '{name}' returns {type(leaf).__name__} as '{leaf_name}', not a tensor "
                    "or ragged tensor"
                )
            if leaf.shape.rank == 0:
                raise UserError(
                    f"map '{name}' returns a scalar as '{leaf_name}': its first dimension must "
                    "be that of the records"
                )
            checks.append(
                tf.debugging.assert_equal(
                    num_rows(leaf), size, f"map '{name}': '{leaf_name}' {ROW_RULE}"
                )
            )
    if len(fed) == _MAX_PARTS:
        weight = fed[2]
        if not isinstance(weight, tf.Tensor) or weight.shape.rank != 1:
            raise UserError(f"map '{name}': the weight is not of shape [records]")
        fed = (*fed[:2], tf.cast(weight, tf.float32))
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tuple(tf.nest.map_structure(tf.identity, part) for part in fed)


def _place_in(error: Exception, function: MapFunction) -> str:
    """Return `` in FILE line N``: where in the function's file an error was raised."""
    file = getattr(inspect.getmodule(function), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if file and frame.filename == file]
    lines += [int(line) for found, line in _FRAME.findall(str(error)) if found == file]
    return f" in {Path(file).name} line {lines[-1]}" if file and lines else ""


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, without the frames that AutoGraph puts in."""
    text = _FRAME_WITH_CODE.split(str(error))[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].removeprefix(f"{type(error).__name__}: ") if lines else ""
