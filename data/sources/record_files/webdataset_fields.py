"""The values of the fields of one WebDataset record. Pure.

Fields are named by what follows the key: ``jpg``, ``cls``, ``json``, ``seg.png``.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tenfold.data.format.example import Features
from tenfold.data.format.manifest import IMAGE, LABEL

# In the order in which one of several becomes the feature `image`.
IMAGES: Final = (
    "jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif", "avif", "jp2",
    "ppm", "pgm", "pbm",
)  # fmt: skip
_CLASS: Final = "cls"
_NUMBERS: Final = (_CLASS, "cls2", "class", "count", "index", "inx", "id")
_TEXTS: Final = ("txt", "text", "transcript", "caption")
# Formats that need a decoder which is the user's choice, and formats that would run code.
_REFUSED: Final = {
    **dict.fromkeys(("mp3", "wav", "flac", "ogg", "opus", "m4a", "aac"), "audio"),
    **dict.fromkeys(("mp4", "avi", "mov", "mkv", "webm", "mpg", "mpeg", "h264"), "video"),
    "mat": "a MATLAB file",
    **dict.fromkeys(("pyd", "pickle", "pkl", "pth", "pt"), "a pickle, which can run code"),
}


def refused_field(field: str) -> str:
    """Return what kind of file a field is that is left to the user's function; "" for others."""
    return _REFUSED.get(field.lower().rpartition(".")[2], "")


def is_image_field(field: str) -> bool:
    """Whether a field holds an encoded image."""
    return field.rpartition(".")[2] in IMAGES


def decode_fields(data: Mapping[str, bytes]) -> Features:
    """Return the features of a record from the bytes of its fields.

    - Images keep their bytes; the first is called ``image``.
    - ``cls``, ``index``, ``id``, … hold a whole number, or else text; ``cls`` is called ``label``.
    - ``txt``, ``text``, … hold text.
    - The values of a ``json`` object become features, nested ones as ``a.b``; nulls are left out.
    - ``npy`` and ``npz`` hold arrays.
    - Other fields keep their bytes.

    A field ``seg.png`` is called ``seg``.

    Raises:
      ValueError: a field cannot be decoded, or two features have one name.
    """
    found: dict[str, Any] = {}
    images = sorted((field for field in data if field in IMAGES), key=IMAGES.index)
    for field, content in sorted(data.items()):
        prefix, _, suffix = field.rpartition(".")
        name = IMAGE if images[:1] == [field] else prefix or field
        for feature, value in _decoded(name, suffix, content):
            if feature in found:
                raise ValueError(f"its field '{field}' gives the feature '{feature}' once more")
            found[feature] = value
    return found


def _decoded(name: str, suffix: str, content: bytes) -> list[tuple[str, Any]]:
    if suffix in _NUMBERS:
        text = _text(name, content).strip()
        value = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else text
        return [(LABEL if name == _CLASS else name, value)]
    if suffix in _TEXTS:
        return [(name, _text(name, content))]
    if suffix == "json":
        return _from_json(name, content)
    if suffix == "npy":
        return [(name, _array(name, content))]
    if suffix == "npz":
        return list(_arrays(name, content).items())
    return [(name, content)]


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"its field '{name}' is no text in UTF-8 ({error})") from None


def _from_json(name: str, content: bytes) -> list[tuple[str, Any]]:
    try:
        value = json.loads(content)
        if not isinstance(value, dict):
            return [(name, value)]
        return list(_flat("" if name == "json" else name, value))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its field '{name}' is not JSON ({error})") from None


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested objects under names such as ``a.b``."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, inner)
    elif value is not None:
        yield prefix, value


def _array(name: str, content: bytes) -> Any:
    import numpy as np

    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"its field '{name}' is no .npy of numbers ({error})") from None


def _arrays(name: str, content: bytes) -> dict[str, Any]:
    import zipfile

    import numpy as np

    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"its field '{name}' is no .npz of numbers ({error})") from None
