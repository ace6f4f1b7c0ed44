"""Choice of the view of a job: a live table on a terminal, plain lines elsewhere."""

import os
import sys

from tenfold.launcher.display.plain import PlainView
from tenfold.launcher.display.view import View


def open_view(*, show_tf_logs: bool) -> View:
    """Return a live table if standard error is a terminal, else plain lines.

    Args:
      show_tf_logs: whether to show the log lines of TensorFlow's C++ code too.
    """
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from tenfold.launcher.display.live_table import TableView

        return TableView(show_tf_logs=show_tf_logs)
    return PlainView(show_tf_logs=show_tf_logs)
