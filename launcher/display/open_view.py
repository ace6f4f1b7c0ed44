"""Choice of the view of a job: a live table on a terminal, plain lines elsewhere."""

import os
import sys

from tenfold.launcher.display.plain import PlainView
from tenfold.launcher.display.progress.job_progress import track_job
from tenfold.launcher.display.view import View
from tenfold.launcher.job.job_spec import JobSpec


def open_view(spec: JobSpec, *, show_tf_logs: bool) -> View:
    """Return a live table if standard error is a terminal, else plain lines.

    Args:
      spec: the job to show.
      show_tf_logs: whether to show the log lines of TensorFlow's C++ code too.
    """
    tracker = track_job(spec)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from tenfold.launcher.display.live_table import TableView

        return TableView(tracker=tracker, show_tf_logs=show_tf_logs)
    return PlainView(tracker=tracker, show_tf_logs=show_tf_logs)
