"""The entry of a worker's pod: ``python -P -m tenfold.launcher.pod``.

The job lies in the file that TENFOLD_JOB_FILE names, its place among the workers is
JOB_COMPLETION_INDEX, which Kubernetes sets in every pod of an Indexed Job. It runs the worker,
prints what the worker says, passes SIGTERM on, and exits as the worker does.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage import open_folder
from tenfold.launcher.environment import remote_worker_defaults
from tenfold.launcher.events import MARK, decode_event
from tenfold.launcher.job import JOB_FILE, job_from_json, worker_env
from tenfold.launcher.view import PlainView

INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
EXIT_USAGE: Final = 2


def read_index(environ: Mapping[str, str], num_workers: int) -> int:
    """Returns which worker this pod is.

    Raises:
      UserError: the variable is missing or is not the index of a worker.
    """
    text = environ.get(INDEX_VARIABLE, "")
    if not text.isdecimal() or int(text) >= num_workers:
        raise UserError(
            f"{INDEX_VARIABLE} is '{text}', not a number below {num_workers}: this program runs "
            "in a pod of the Indexed Job that 'tenfold launch --backend=kubernetes' renders"
        )
    return int(text)


def main() -> int:
    """Runs this pod's worker; returns its exit status, 128 + N where signal N killed it."""
    try:
        path = Path(os.environ.get("TENFOLD_JOB_FILE", ""))
        text = path.read_text(encoding="utf-8")
        spec, cluster = job_from_json(text, where=str(path))
        index = read_index(os.environ, cluster.num_workers)
        open_folder(spec.run_dir).write(JOB_FILE, text.encode())
    except (UserError, JobError, OSError) as error:
        print(f"tenfold: {error}", file=sys.stderr)
        return EXIT_USAGE
    restart = int(os.environ.get("TENFOLD_RESTART") or 0)
    env = worker_env(spec, cluster, index, restart=restart)
    print(json.dumps({"worker": index, "TF_CONFIG": json.loads(env["TF_CONFIG"])}), flush=True)
    return _run(spec.argv_on(sys.executable), {**remote_worker_defaults(), **env}, spec.cwd, index)


def _run(argv: tuple[str, ...], env: dict[str, str], cwd: str, index: int) -> int:
    try:
        worker = subprocess.Popen(argv, env={**os.environ, **env}, cwd=cwd, stdout=subprocess.PIPE)
    except OSError as error:
        print(f"tenfold: cannot start the worker: {error}", file=sys.stderr)
        return EXIT_USAGE

    def pass_on(number: int, _: FrameType | None) -> None:
        worker.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    _print_output(worker, index)
    code = worker.wait()
    return code if code >= 0 else 128 - code


def _print_output(worker: "subprocess.Popen[bytes]", index: int) -> None:
    view = PlainView(show_tf_logs=True)
    assert worker.stdout is not None
    for raw in worker.stdout:
        text, mark, rest = raw.decode("utf-8", errors="replace").rstrip("\n").partition(MARK)
        event = decode_event(mark + rest) if mark else None
        if event is not None:
            view.event(index, event)
        if text or not mark:
            print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
