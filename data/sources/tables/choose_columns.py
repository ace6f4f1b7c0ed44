"""Which columns of a table hold the label, the images, or the paths of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import pyarrow as pa

from tenfold.data.errors import UserError
from tenfold.data.format.image_header import is_image
from tenfold.data.format.manifest import IMAGE, LABEL
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.features import (
    IMAGE_NAMES,
    LABEL_NAMES,
    PATH_NAMES,
    choose_feature,
)
from tenfold.data.sources.tables.columns.arrow_columns import Values
from tenfold.data.sources.tables.columns.stored_values import first_texts

_IMAGE_SUFFIXES: Final = (
    ".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".avif",
)  # fmt: skip

# Cells of text whose type is to be found, or values of a known type.
Cells: TypeAlias = pa.Array | Values


@dataclass(frozen=True)
class ChosenColumns:
    """The columns of the label, of encoded images and of paths of images; "" for none."""

    label: str = ""
    image: str = ""
    path: str = ""


def choose_columns(
    cells: Mapping[str, Cells], names: Mapping[str, Any], options: SourceOptions
) -> ChosenColumns:
    """Return the columns of a table's label and images.

    Args:
      cells: The first rows, by column.
      names: All columns; some may not be in the first rows.
      options: The columns that the user chose.

    Raises:
      UserError: there is no such column, or another column has the feature's name.
    """
    label = choose_feature(options.label, LABEL_NAMES, names, "label")
    if options.image:
        choose_feature(options.image, (), names, "image")
        is_path = _is_text(cells[options.image]) if options.image in cells else True
        path, image = (options.image, "") if is_path else ("", options.image)
    else:
        path, image = _find_images({n: c for n, c in cells.items() if n != label})
    for feature, chosen in ((LABEL, label), (IMAGE, image or path)):
        if chosen and chosen != feature and feature in names:
            raise UserError(
                f"columns '{chosen}' and '{feature}' would both be the feature '{feature}': "
                "rename one of them, or leave it out by --columns"
            )
    return ChosenColumns(label, image, path)


def _find_images(cells: Mapping[str, Cells]) -> tuple[str, str]:
    """Return the column of paths of images, or that of encoded images; "" for none."""
    paths = {name: None for name, values in cells.items() if _names_images(values)}
    if path := choose_feature("", PATH_NAMES, paths, "image"):
        return path, ""
    data = {name: None for name, values in cells.items() if _holds_images(values)}
    image = choose_feature("", IMAGE_NAMES, data, "image")
    return "", image or (next(iter(data)) if len(data) == 1 else "")


def items_of(cells: Cells) -> Any:
    """Return the cells, or the items of values, as an Arrow array."""
    return cells.items if isinstance(cells, Values) else cells


def _is_text(cells: Cells) -> bool:
    return not isinstance(cells, Values) or (cells.is_text and not cells.lengths)


def _names_images(cells: Cells) -> bool:
    """Whether a column is text whose first value has an image's suffix."""
    if not _is_text(cells):
        return False
    return next(first_texts(cells), "").lower().strip().endswith(_IMAGE_SUFFIXES)


def _holds_images(cells: Cells) -> bool:
    """Whether a column's first value is an encoded JPEG or PNG."""
    if not isinstance(cells, Values) or cells.is_text or cells.lengths:
        return False
    if not pa.types.is_large_binary(cells.items.type):
        return False
    return is_image(next((item.as_py() for item in cells.items if item.is_valid), b""))
