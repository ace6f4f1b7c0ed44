"""The entry point of a worker's pod: ``python -m tenfold.launcher.supervisor.members.pod``.

A member of a joined job (see `join`) whose job and cluster stand in the file that
TENFOLD_JOB_FILE names; JOB_COMPLETION_INDEX, which Kubernetes sets in every pod of an Indexed
Job, is the worker's index. It exits with the worker's status; with EXIT_PEER_FAILED if a user's
own program failed because another worker had failed.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.planning.cluster_task import ClusterTask
from tenfold.launcher.display.plain import PlainView
from tenfold.launcher.display.progress.job_progress import track_job
from tenfold.launcher.display.summary import result_text
from tenfold.launcher.job.job_spec import job_from_json
from tenfold.launcher.supervisor.members.join_job import Joining, join
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.worker.environment import remote_worker_defaults

FILE_VARIABLE: Final = "TENFOLD_JOB_FILE"
INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
# Below terminationGracePeriodSeconds of the manifests, after which Kubernetes kills the pod.
GRACE_S: Final = 45.0
# The nodes of other pods may have to be created first.
RENDEZVOUS_S: Final = 3600.0

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
        joining = _read_joining(os.environ)
        place = {"worker": joining.task.index, "workers": joining.task.addresses}
        print(json.dumps(place), flush=True)
        view = PlainView(tracker=track_job(joining.spec), show_tf_logs=True)
        status, result = join(joining, view)
    except (UserError, OSError) as error:
        print(f"tenfold: {error}", file=sys.stderr)
        return EXIT_USAGE
    except JobError as error:
        print(f"tenfold: {error}", file=sys.stderr)
        return EXIT_FAILED
    if result is not None:
        print(result_text(result, joining.spec.run_dir), end="", flush=True)
    return status


def _read_joining(environ: Mapping[str, str]) -> Joining:
    path, text = read_job_file(environ)
    spec, cluster = job_from_json(text, where=path)
    index = read_index(environ, cluster.num_workers)
    return Joining(
        spec=spec,
        task=ClusterTask(index, cluster.num_workers, INDEX_VARIABLE, addresses=cluster.workers),
        grace_s=GRACE_S,
        watch=WatchPolicy(rendezvous_timeout_s=RENDEZVOUS_S),
        restart=int(environ.get("TENFOLD_RESTART") or 0),
        passed_env=remote_worker_defaults(),
    )


if __name__ == "__main__":
    sys.exit(main())
