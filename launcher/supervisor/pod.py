"""The entry point of a worker's pod: ``python -m tenfold.launcher.supervisor.pod``.

TENFOLD_JOB_FILE names the job's file; JOB_COMPLETION_INDEX, which Kubernetes sets in every pod
of an Indexed Job, is the task index. This program runs the worker, prints its output and its
events in words, forwards SIGTERM, and exits with the worker's status; with EXIT_PEER_FAILED if
a user's own program failed because another worker had failed.

The main thread waits for the worker; one thread per output stream copies it, under a lock that
protects the record and the view.
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

_WHERE_THIS_RUNS: Final = (
    "this program runs in a pod of the Job that 'tenfold launch --backend=kubernetes' renders"
)


def read_job_file(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the path of the job's file, and its text.

    Raises:
      UserError: the variable is missing, or the file cannot be read.
    """
    path = environ.get(FILE_VARIABLE, "")
    try:
        return path, Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{FILE_VARIABLE} is '{path}', which cannot be read ({reason}): {_WHERE_THIS_RUNS}"
        ) from error


def read_index(environ: Mapping[str, str], num_workers: int) -> int:
    """Return the task index of this pod's worker.

    Raises:
      UserError: the variable is missing or is not a task index.
    """
    text = environ.get(INDEX_VARIABLE, "")
    if not text.isdecimal() or int(text) >= num_workers:
        raise UserError(
            f"{INDEX_VARIABLE} is '{text}', not a number below {num_workers}: {_WHERE_THIS_RUNS}"
        )
    return int(text)


def main() -> int:
    """Run this pod's worker; returns its exit status, 128 + N if signal N killed it."""
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
    return code if spec.train else program_exit_status(code, record)


def program_exit_status(code: int, record: WorkerRecord) -> int:
    """Return the exit status of a pod whose user's program ended with `code`.

    EXIT_PEER_FAILED if its last output blames another worker (see `verdict`), so that Kubernetes
    does not count that as a second crash. The built-in trainer exits with it by itself.
    """
    signed_code = -(code - 128) if code > 128 else code
    record.take_event(WorkerEvent(record.index, "", Exit(signed_code)), time.time())
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

    def forward(number: int, _: FrameType | None) -> None:
        worker.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    printer = _Printer(record)
    readers = [
        threading.Thread(target=printer.copy, args=streams, daemon=True)
        for streams in ((worker.stdout, sys.stdout), (worker.stderr, sys.stderr))
    ]
    for reader in readers:
        reader.start()
    code = worker.wait()
    for reader in readers:  # processes that the worker has started may hold its streams open
        reader.join(DRAIN_S)
    return code if code >= 0 else 128 - code


class _Printer:
    """Prints a worker's output, its events in words, and records both."""

    def __init__(self, record: WorkerRecord) -> None:
        self._record = record
        self._view = PlainView(show_tf_logs=True)
        self._lock = threading.Lock()

    def copy(self, source: IO[bytes], target: IO[str]) -> None:
        """Copy a stream to its end."""
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
