"""The labels of stored rows, mapped to class indices."""

from collections.abc import Collection, Sequence

import numpy as np

from tenfold.data.format.manifest import LABEL, MAX_CLASSES
from tenfold.data.sources.class_labels import LabelMap, map_labels
from tenfold.data.sources.tables.columns.column_store import ColumnStore
from tenfold.data.sources.tables.columns.stored_sizes import blocks
from tenfold.data.sources.tables.columns.table_column import TableColumn


def map_stored_labels(
    store: ColumnStore,
    column: TableColumn,
    *,
    unusable: Collection[int],
    classes: Sequence[str] | None,
    known: Sequence[str] | None,
) -> LabelMap:
    """Return the classes of a table's label, after mapping the stored labels to their indices.

    Args:
      store: The rows.
      column: The column of the label.
      unusable: Rows whose labels do not count.
      classes: The names that the user gives; None takes the labels that occur.
      known: The names that the data set itself has for a label of numbers, used if they fit.

    Raises:
      UserError: a label is not among `classes`.
    """
    if column.spec.kind != "int64" or column.spec.shape != ():
        return LabelMap()
    if column.has_one_hot:
        return LabelMap(num_classes=column.num_one_hot)
    if column.has_text_classes:
        labels = map_labels(tuple(column.classes), records=len(store), classes=classes)
        codes = column.classes.items()
        indices = {code: labels.indices[n] for n, code in codes if n in labels.indices}
        _map_numbers(store, LABEL, indices)
        return labels
    numbers = _distinct_numbers(store, LABEL, np.array(sorted(unusable), np.int64))
    if classes is None and known and numbers <= set(range(len(known))):
        classes = tuple(known)
    labels = map_labels(tuple(numbers), records=len(store), classes=classes)
    if labels.indices:
        _map_numbers(store, LABEL, {int(label): n for label, n in labels.indices.items()})
    return labels


def _distinct_numbers(store: ColumnStore, name: str, unusable: np.ndarray) -> set[int]:
    """Return the distinct values of a scalar int64 column; a few more than MAX_CLASSES suffice.

    Rows whose indices are in `unusable` do not count.
    """
    found: set[int] = set()
    for begin, end in blocks(store):
        values = store.take(slice(begin, end), (name,))[name].values
        here = unusable[(unusable >= begin) & (unusable < end)] - begin
        found.update(np.unique(np.delete(values, here)).tolist())
        if len(found) > MAX_CLASSES:
            break
    return found


def _map_numbers(store: ColumnStore, name: str, table: dict[int, int]) -> None:
    """Replace the values of a scalar int64 column by those that `table` has for them."""
    known = np.array(sorted(table), np.int64)
    mapped = np.array([table[number] for number in known.tolist()], np.int64)
    for begin, end in blocks(store):
        values = store.take(slice(begin, end), (name,))[name].values
        place = np.minimum(np.searchsorted(known, values), len(known) - 1)
        store.replace(name, begin, np.where(known[place] == values, mapped[place], 0))
