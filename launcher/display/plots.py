"""Saving of figures as SVG or PNG."""

import io
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import save_file

SUFFIXES: Final = (".svg", ".png")


def check_plot_path(path: str) -> None:
    """Check that `path` can hold a plot.

    Raises:
      UserError: the suffix is neither .svg nor .png, or the folder does not exist.
    """
    if not path.endswith(SUFFIXES):
        raise UserError(f"--plot={path}: the file must end in {' or '.join(SUFFIXES)}")
    if not is_url(path) and not Path(path).expanduser().absolute().parent.is_dir():
        raise UserError(f"--plot={path}: there is no folder '{Path(path).parent}'")


def save_figure(figure: Any, path: str, metadata: Any = None) -> None:
    """Save a matplotlib figure at `path`, the value of `--plot`, on disk or remote storage.

    Args:
      figure: a matplotlib figure.
      path: a path or URL that ends in .svg or .png.
      metadata: the metadata of matplotlib's `savefig`.

    Raises:
      UserError: the file cannot be written.
      JobError: the storage could not be reached.
    """
    image = io.BytesIO()
    figure.savefig(image, format=path.rpartition(".")[2], metadata=metadata)
    try:
        save_file(path, image.getvalue())
    except OSError as error:
        raise UserError(f"--plot={path}: {error.strerror or error}") from error
