"""Choice of the view of a job: a live table on a terminal, plain lines elsewhere."""

import os
import sys
from collections.abc import Iterator

from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.display.plain import PlainView
from tenfold.launcher.display.progress.job_progress import track_job
from tenfold.launcher.display.view import View
from tenfold.launcher.job.events import Epoch
from tenfold.launcher.job.job_spec import JobSpec
from tenfold.launcher.job.run_dir import METRICS_FILE


def open_view(spec: JobSpec, *, show_tf_logs: bool) -> View:
    """Return a live table if standard error is a terminal, else plain lines.

    Args:
      spec: the job to show.
      show_tf_logs: whether to show the log lines of TensorFlow's C++ code too.
    """
    tracker = track_job(spec)
    for epoch in finished_epochs(spec):
        tracker.take_epoch(epoch)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from tenfold.launcher.display.live_table import TableView

        return TableView(tracker=tracker, show_tf_logs=show_tf_logs)
    return PlainView(tracker=tracker, show_tf_logs=show_tf_logs)


def finished_epochs(spec: JobSpec) -> Iterator[Epoch]:
    """Yield the epochs that earlier launches into the run directory finished.

    A resumed run goes on with them: its best value may be among them.
    """
    if spec.train is None:
        return
    from tenfold.models.metrics_line import EpochMetrics, read_metrics_lines

    data = open_folder(spec.run_dir).read(METRICS_FILE) or b""
    # A long run has a million lines of steps, which would take a minute to parse.
    lines = [line for line in data.splitlines(keepends=True) if b'"epoch"' in line[:30]]
    for line in read_metrics_lines(b"".join(lines))[0]:
        if isinstance(line, EpochMetrics):
            yield Epoch(line.epoch, spec.train.epochs, line.loss, line.metrics)
