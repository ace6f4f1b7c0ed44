"""The entry of a worker's pod: ``python -m tenfold.launcher.supervisor.pod``.

The job lies in the file that TENFOLD_JOB_FILE names, its place among the workers is
JOB_COMPLETION_INDEX, which Kubernetes sets in every pod of an Indexed Job. It runs the worker,
prints what the worker says, passes SIGTERM on, and exits as the worker does; with
EXIT_PEER_FAILED where a program of the user's own failed because another worker had.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import IO, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.display.plain import PlainView
from tenfold.launcher.job.events import (
    EXIT_PEER_FAILED,
    EXIT_PREEMPTED,
    Exit,
    WorkerEvent,
    split_output,
)
from tenfold.launcher.job.job_spec import job_from_json, worker_env
from tenfold.launcher.job.run_dir import JOB_FILE
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.verdict import is_consequence
from tenfold.launcher.worker.environment import remote_worker_defaults

FILE_VARIABLE: Final = "TENFOLD_JOB_FILE"
INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
EXIT_USAGE: Final = 2
DRAIN_S: Final = 2.0

_HERE: Final = (
    "this program runs in a pod of the Job that 'tenfold launch --backend=kubernetes' renders"
)


def read_job_file(environ: Mapping[str, str]) -> tuple[str, str]:
    """Returns where the job lies, and its text.

    Raises:
      UserError: the variable is missing, or names no file that can be read.
    """
    path = environ.get(FILE_VARIABLE, "")
    try:
        return path, Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{FILE_VARIABLE} is '{path}', which cannot be read ({reason}): {_HERE}"
        ) from error


def read_index(environ: Mapping[str, str], num_workers: int) -> int:
    """Returns which worker this pod is.

    Raises:
      UserError: the variable is missing or is not the index of a worker.
    """
    text = environ.get(INDEX_VARIABLE, "")
    if not text.isdecimal() or int(text) >= num_workers:
        raise UserError(f"{INDEX_VARIABLE} is '{text}', not a number below {num_workers}: {_HERE}")
    return int(text)


def main() -> int:
    """Runs this pod's worker; returns its exit status, 128 + N where signal N killed it."""
    try:
        path, text = read_job_file(os.environ)
        spec, cluster = job_from_json(text, where=path)
        index = read_index(os.environ, cluster.num_workers)
        open_folder(spec.run_dir).write(JOB_FILE, text.encode())
    except (UserError, JobError, OSError) as error:
        print(f"tenfold: {error}", file=sys.stderr)
        return EXIT_USAGE
    restart = int(os.environ.get("TENFOLD_RESTART") or 0)
    env = worker_env(spec, cluster, index, restart=restart)
    print(json.dumps({"worker": index, "TF_CONFIG": json.loads(env["TF_CONFIG"])}), flush=True)
    record = WorkerRecord(index)
    env = {**os.environ, **remote_worker_defaults(), **env}
    code = _run(spec.argv_on(sys.executable), env, spec.cwd, record)
    return code if spec.train else own_programs_status(code, record)


def own_programs_status(code: int, record: WorkerRecord) -> int:
    """Returns what a pod exits with where a user's program ended with `code`: EXIT_PEER_FAILED
    where its last words blame another worker (see `verdict`), so that Kubernetes does not count
    that as a crash too. The built-in trainer exits so by itself.
    """
    end = -(code - 128) if code > 128 else code
    record.take_event(WorkerEvent(record.index, "", Exit(end)), time.time())
    is_failure = code not in (0, EXIT_PREEMPTED)
    return EXIT_PEER_FAILED if is_failure and is_consequence(record) else code


def _run(argv: tuple[str, ...], env: dict[str, str], cwd: str, record: WorkerRecord) -> int:
    try:
        worker = subprocess.Popen(
            argv, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        print(f"tenfold: cannot start the worker: {error}", file=sys.stderr)
        return EXIT_USAGE

    def pass_on(number: int, _: FrameType | None) -> None:
        worker.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    printer = _Printer(record)
    readers = [
        threading.Thread(target=printer.copy, args=streams, daemon=True)
        for streams in ((worker.stdout, sys.stdout), (worker.stderr, sys.stderr))
    ]
    for reader in readers:
        reader.start()
    code = worker.wait()
    for reader in readers:  # what the worker has started may hold its streams open
        reader.join(DRAIN_S)
    return code if code >= 0 else 128 - code


class _Printer:
    """Prints what a worker says, its events in words, and keeps in mind what it said."""

    def __init__(self, record: WorkerRecord) -> None:
        self._record = record
        self._view = PlainView(show_tf_logs=True)
        self._lock = threading.Lock()

    def copy(self, source: IO[bytes], target: IO[str]) -> None:
        """Copies a stream to its end."""
        for raw in source:
            text, event = split_output(raw.decode("utf-8", errors="replace").rstrip("\n"))
            with self._lock:
                if event is not None:
                    self._record.take_event(event, time.time())
                    self._view.event(self._record.index, event)
                if text is not None:
                    self._record.take_line(text, time.time())
                    print(text, file=target, flush=True)


if __name__ == "__main__":
    sys.exit(main())
