"""Which columns of a table hold the label, the images, or the paths of images."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
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
from tenfold.data.sources.tables.columns.table_images import Images, image_exists

_IMAGE_SUFFIXES: Final = (
    ".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".avif",
)  # fmt: skip

# Cells of text whose type is to be found, or values of a known type.
Cells: TypeAlias = pa.Array | Values
# Values looked at to see whether a column names images: the image of the first may be missing.
_LOOKED_AT: Final = 16


@dataclass(frozen=True)
class ChosenColumns:
    """The columns of a table that are more than values.

    Attributes:
      label: The column of the label; "" for none.
      image: The column of encoded images that are the feature ``image``; "" for none.
      paths: The columns of paths of images, and the feature that each becomes.
      guessed: Those of `paths` that neither the user nor their names say to be images.
      without_images: Columns of text that look like paths of images, but name none that exists.
    """

    label: str = ""
    image: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    guessed: frozenset[str] = frozenset()
    without_images: tuple[str, ...] = ()


def choose_columns(
    cells: Mapping[str, Cells],
    names: Mapping[str, Any],
    options: SourceOptions,
    images: Images,
    texts: Collection[str] = (),
) -> ChosenColumns:
    """Return the columns of a table's label and images.

    Every column whose values are paths of images that exist is one of images. One of them, or one
    of encoded images, is the feature ``image``: the first that the user names, else the one with
    a usual name, else the only one.

    Args:
      cells: The first rows, by column.
      names: All columns; some may not be in the first rows.
      options: The columns that the user chose.
      images: The images that the rows may name.
      texts: Columns that the user declared to be text.

    Raises:
      UserError: there is no such column, or another column has the feature's name.
    """
    wanted = (options.image,) if options.image in names else options.images
    for name in wanted:
        choose_feature(name, (), names, "image")
    alike = [n for n, c in cells.items() if n not in (*texts, options.label) and _looks_like(c)]
    found = [name for name in alike if _names_images(cells[name], images)]
    others = {n: None for n in names if n not in (*found, *wanted) or n == options.label}
    label = choose_feature(options.label, LABEL_NAMES, others, "label")
    if wanted:
        first = wanted[0]
    else:
        first = _first_image({n: c for n, c in cells.items() if n != label}, alike, found)
    for feature, chosen in ((LABEL, label), (IMAGE, first)):
        if chosen and chosen != feature and feature in names:
            raise UserError(
                f"columns '{chosen}' and '{feature}' would both be the feature '{feature}': "
                "rename one of them, or leave it out by --columns"
            )
    named = [name for name in (first, *wanted, *found) if name in cells and _is_text(cells[name])]
    named += [name for name in wanted if name not in cells]
    paths = {name: IMAGE if name == first else name for name in named}
    return ChosenColumns(
        label,
        "" if first in paths else first,
        paths,
        frozenset(name for name in paths if name not in wanted and name.lower() not in PATH_NAMES),
        tuple(name for name in alike if name not in (*paths, label)),
    )


def _first_image(
    cells: Mapping[str, Cells], alike: Collection[str], found: Collection[str]
) -> str:
    """Return the column of the feature ``image``, of paths or of encoded images; "" for none.

    `found` are the columns that name images, `alike` those that look so.
    """
    if path := choose_feature("", (IMAGE, *PATH_NAMES), dict.fromkeys(found), "image"):
        return path
    data = {name: None for name, values in cells.items() if _holds_images(values)}
    if image := choose_feature("", IMAGE_NAMES, data, "image"):
        return image
    for only in (data, found):
        if len(only) == 1:
            return next(iter(only))
    # The images of a column with a usual name are missing, which the scan will say.
    return "" if found else choose_feature("", PATH_NAMES, dict.fromkeys(alike), "image")


def items_of(cells: Cells) -> Any:
    """Return the cells, or the items of values, as an Arrow array."""
    return cells.items if isinstance(cells, Values) else cells


def _is_text(cells: Cells) -> bool:
    return not isinstance(cells, Values) or (cells.is_text and not cells.lengths)


def _looks_like(cells: Cells) -> bool:
    """Whether a column is text whose first values have the suffixes of images."""
    texts = list(islice(first_texts(cells), _LOOKED_AT)) if _is_text(cells) else []
    return bool(texts) and all(t.lower().strip().endswith(_IMAGE_SUFFIXES) for t in texts)


def _names_images(cells: Cells, images: Images) -> bool:
    """Whether one of the first values of a column of text names an image that exists."""
    return any(
        image_exists(images, text.strip()) for text in islice(first_texts(cells), _LOOKED_AT)
    )


def _holds_images(cells: Cells) -> bool:
    """Whether a column's first value is an encoded JPEG or PNG."""
    if not isinstance(cells, Values) or cells.is_text or cells.lengths:
        return False
    if not pa.types.is_large_binary(cells.items.type):
        return False
    return is_image(next((item.as_py() for item in cells.items if item.is_valid), b""))
