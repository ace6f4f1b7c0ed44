"""Sources of ``.npz`` and ``.npy`` arrays, whose first dimension counts the examples."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.data.errors import UserError
from tenfold.data.format.example import Features
from tenfold.data.format.manifest import LABEL
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.planning.layout import SourceStats
from tenfold.data.planning.splits.split_names import usual_split
from tenfold.data.sources.base import Encoded, Source, SourceOptions, UnusableRecord
from tenfold.data.sources.class_labels import (
    NO_CLASSES,
    LabelMap,
    known_indices,
    map_labels,
    plain_label,
)
from tenfold.data.sources.features import (
    IMAGE_NAMES,
    LABEL_NAMES,
    choose_feature,
    encode_features,
    is_image_shape,
    with_standard_names,
)
from tenfold.data.sources.split_sources import join_splits

if TYPE_CHECKING:
    import numpy as np

    from tenfold.data.format.columns import Column, Columns


class ArraySource:
    """Arrays of `.npy` files by feature name; each process maps them into memory on first use."""

    def __init__(
        self, spec: str, files: Mapping[str, Path], labels: LabelMap, one_hot: bool
    ) -> None:
        self.stats = SourceStats(0, 0, 0)
        self.notes: tuple[str, ...] = (labels.note,) if labels.note else ()
        self._spec = spec
        self._files = dict(files)
        self._labels = labels
        self._one_hot = one_hot
        self._arrays: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_arrays": {}}

    def features(self, index: int) -> Features:
        """Return one row of every array; see `Source`."""
        row = {name: array[index] for name, array in self._mapped().items()}
        if self._changes_labels:
            row[LABEL] = self._stored_label(row[LABEL])
        return row

    def columns(self, indices: "np.ndarray") -> "Columns | None":
        """Return rows of every array as columns; see `Source`."""
        from tenfold.data.format.columns import Columns

        columns: dict[str, Column] = {}
        unusable: dict[int, str] = {}
        for name, array in self._mapped().items():
            if array.dtype == "uint8" and is_image_shape(array.shape[1:]):
                return None  # they have to be encoded one by one
            values = array[indices]
            if name == LABEL and self._changes_labels:
                values = _stored_labels(values, self._stored_label, unusable)
            column = _column(values)
            if column is None:
                return None
            columns[name] = column
        return Columns(len(indices), columns, unusable)

    @property
    def _changes_labels(self) -> bool:
        return self._one_hot or bool(self._labels.indices)

    def _stored_label(self, label: Any) -> int:
        if self._one_hot:
            return int(label.argmax())
        try:
            return int(self._labels.stored(label))
        except ValueError as error:
            raise UnusableRecord(str(error)) from error

    def _mapped(self) -> dict[str, "np.ndarray"]:
        if not self._arrays:
            self._arrays = {name: _load(path) for name, path in self._files.items()}
        return self._arrays

    def encoded(self, index: int) -> Encoded:
        """Return one row, packed; see `Source`."""
        return encode_features(self.features(index))

    def name(self, index: int) -> str:
        """Return the name of the source and the number of the row."""
        return f"{self._spec}: row {index}"


def _stored_labels(
    labels: "np.ndarray", stored_label: Callable[[Any], int], unusable: dict[int, str]
) -> "np.ndarray":
    """Return labels as they are stored; each distinct one is looked up once.

    Args:
      labels: The labels, [n, …].
      stored_label: Gives a label as it is stored, or raises `UnusableRecord`.
      unusable: Takes the reasons by row.
    """
    import numpy as np

    different, index = np.unique(labels, return_inverse=True, axis=0)
    stored = np.zeros(len(different), np.int64)
    for number, label in enumerate(different):
        try:
            stored[number] = stored_label(label)
        except UnusableRecord as error:
            rows = np.flatnonzero(index == number).tolist()
            unusable.update(dict.fromkeys(rows, str(error)))
    return stored[index]


def _column(values: "np.ndarray") -> "Column | None":
    """Return the column of an array; None where the error of a single record says more."""
    from tenfold.data.format.columns import bytes_column, number_column

    shape = values.shape[1:]
    if values.dtype.kind in "SU":
        # Among bytes there may be encoded images; text is none.
        kind = "image" if values.dtype.kind == "S" and shape == () else "bytes"
        return bytes_column(values.reshape(-1).tolist(), kind=kind, shape=shape)
    try:
        return number_column(values)
    except ValueError:
        return None


def scan_arrays(spec: str, path: str, scratch: Path, options: SourceOptions) -> Source:
    """Return the arrays of a file as a source.

    A file whose arrays are all named by split, as ``x_train``, ``y_train``, ``x_test`` and
    ``y_test``, has these splits.

    Args:
      spec: The source as the user wrote it, for names and errors.
      path: The ``.npz`` or ``.npy`` file. ``FILE.npz:train`` uses the arrays whose names end in
        ``_train``, without that suffix.
      scratch: Local folder for the unpacked arrays.
      options: Names of image and label, and whether labels are one-hot.

    Raises:
      UserError: the file holds no arrays, or objects, or arrays of different lengths.
    """
    path, _, suffix = path.partition(".npz:") if ".npz:" in path else (path, "", "")
    path = path + ".npz" if suffix else path
    if path.endswith(".npz") and not suffix and (suffixes := _split_suffixes(path)):
        return join_splits(
            {split: f"{path}:{suffix}" for split, suffix in suffixes.items()},
            scratch,
            lambda part, folder: scan_arrays(part, part, folder, options),
        )
    files = _unpack(path, scratch) if path.endswith(".npz") else {"x": Path(path)}
    if suffix:
        files = _with_suffix(path, files, f"_{suffix}")
    arrays = {name: _load(file) for name, file in files.items()}
    count = _common_length(path, arrays)
    label = choose_feature(options.label, LABEL_NAMES, arrays, "label")
    image = choose_feature(
        options.image, IMAGE_NAMES, {n: a for n, a in arrays.items() if a.ndim > 2}, "image"
    )
    files = with_standard_names(files, image, label)
    labels = arrays.get(label)
    one_hot = _take_argmax(labels, options.one_hot)
    classes = _classes(spec, labels, one_hot, options)
    source = ArraySource(spec, files, classes, one_hot)
    source.stats = _stats(source, count, classes, _fingerprint(path, suffix, options))
    return source


def _split_suffixes(path: str) -> dict[str, str]:
    """Return the suffix of the arrays of each split; {} if they are not named by split."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.removesuffix(".npy") for member in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise UserError(f"source '{path}' is not an .npz file ({error})") from error
    suffixes = sorted({name.rpartition("_")[2] for name in names})
    found = {usual_split(suffix): suffix for suffix in suffixes}
    return found if len(found) == len(suffixes) > 1 and "" not in found else {}


def _unpack(path: str, scratch: Path) -> dict[str, Path]:
    """Copy the members of an ``.npz`` to files in `scratch`, which can be mapped into memory."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for number, member in enumerate(archive.namelist()):
                target = scratch / f"array-{number}.npy"
                with archive.open(member) as data, open(target, "wb") as file:
                    shutil.copyfileobj(data, file, 1 << 20)
                found[member.removesuffix(".npy")] = target
    except zipfile.BadZipFile as error:
        raise UserError(f"source '{path}' is not an .npz file ({error})") from error
    return found


def _with_suffix(path: str, files: Mapping[str, Path], suffix: str) -> dict[str, Path]:
    chosen = {n.removesuffix(suffix): file for n, file in files.items() if n.endswith(suffix)}
    if not chosen:
        raise UserError(
            f"source '{path}': no array's name ends in '{suffix}'; there are: {', '.join(files)}"
        )
    return chosen


def _load(path: Path) -> "np.ndarray":
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise UserError(
            f"source array '{path.name}' cannot be used ({error}): save plain numbers or text"
        ) from error


def _common_length(path: str, arrays: Mapping[str, "np.ndarray"]) -> int:
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not min(lengths.values()):
        shown = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise UserError(
            f"source '{path}': all arrays must have the same length above 0, these have {shown}; "
            "FILE.npz:train uses only arrays whose names end in _train"
        )
    return next(iter(lengths.values()))


def _classes(
    spec: str, labels: "np.ndarray | None", one_hot: bool, options: SourceOptions
) -> LabelMap:
    """Return the classes of labels that are text, whole numbers or one-hot; none for others."""
    if one_hot:
        assert labels is not None
        return known_indices(labels.shape[1], options.classes)
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "SUiub":
        return NO_CLASSES
    import numpy as np

    distinct = {plain_label(label) for label in np.unique(labels)}
    try:
        return map_labels(distinct, records=len(labels), classes=options.classes)
    except UserError as error:
        raise UserError(f"source '{spec}': {error}") from error


def _take_argmax(labels: "np.ndarray | None", one_hot: str) -> bool:
    if labels is None or labels.ndim != 2 or one_hot == "never":
        return False
    if one_hot == "always":
        return True
    ones = (labels == 1).sum(axis=1)
    zeros = (labels == 0).sum(axis=1)
    return bool(labels.shape[1] > 1 and (ones == 1).all() and (zeros == labels.shape[1] - 1).all())


def _stats(source: ArraySource, count: int, classes: LabelMap, fingerprint: str) -> SourceStats:
    """Return the sizes, extrapolated from about 64 rows, which are encoded for it."""
    step = max(count // 64, 1)
    sizes = [len(source.encoded(row).payload) + FRAME_BYTES for row in range(0, count, step)]
    return SourceStats(
        num_examples=count,
        total_bytes=round(sum(sizes) / len(sizes) * count),
        max_record_bytes=max(sizes),
        label_names=classes.names,
        num_classes=classes.num_classes,
        fingerprint=fingerprint,
    )


def _fingerprint(path: str, suffix: str, options: SourceOptions) -> str:
    status = os.stat(path)
    text = f"{os.path.abspath(path)}\0{suffix}\0{status.st_size}\0{status.st_mtime_ns}"
    if options.classes is not None:
        text += f"\0{options.classes}"
    return f"arrays-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
