"""Rows of arrays as columns."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tenfold.data.format.columns import Column, Columns, bytes_column, number_column
from tenfold.data.format.manifest import LABEL
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.sources.features import is_image_shape


def columns_of_arrays(
    arrays: Mapping[str, np.ndarray],
    indices: np.ndarray,
    *,
    stored_label: Callable[[Any], int] | None,
) -> Columns | None:
    """Return rows of arrays; None where they have to be encoded one by one, as images have.

    Args:
      arrays: The arrays by feature name, [rows, …].
      indices: The rows to take, int64 [n].
      stored_label: Gives a label as it is stored, or raises `UnusableRecord`; None keeps labels.
    """
    columns: dict[str, Column] = {}
    unusable: dict[int, str] = {}
    for name, array in arrays.items():
        if array.dtype == np.uint8 and is_image_shape(array.shape[1:]):
            return None
        values = array[indices]
        if name == LABEL and stored_label is not None:
            values = _stored(values, stored_label, unusable)
        column = _column(values)
        if column is None:
            return None
        columns[name] = column
    return Columns(len(indices), columns, unusable)


def _stored(
    labels: np.ndarray, stored_label: Callable[[Any], int], unusable: dict[int, str]
) -> np.ndarray:
    """Return labels as they are stored; each distinct one is looked up once."""
    different, index = np.unique(labels, return_inverse=True, axis=0)
    stored = np.zeros(len(different), np.int64)
    for number, label in enumerate(different):
        try:
            stored[number] = stored_label(label)
        except UnusableRecord as error:
            rows = np.flatnonzero(index == number).tolist()
            unusable.update(dict.fromkeys(rows, str(error)))
    taken: np.ndarray = stored[index]
    return taken


def _column(values: np.ndarray) -> Column | None:
    code, shape = values.dtype.kind, values.shape[1:]
    if code in "SU":
        # Among bytes there may be encoded images; text is none.
        kind = "image" if code == "S" and shape == () else "bytes"
        return bytes_column(values.reshape(-1).tolist(), kind=kind, shape=shape)
    try:
        return number_column(values)
    except ValueError:  # the error of the single record names it
        return None
