"""How a platform knows a job that was handed over to it: submission.json in the run directory."""

import json
from dataclasses import asdict, dataclass

from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.storage.folder import Folder
from tenfold.launcher.job.run_dir import SUBMISSION_FILE


@dataclass(frozen=True)
class SubmittedJob:
    """A job on a platform.

    Attributes:
      backend: the name of the back end, as --backend gives it.
      job: the platform's number or name of the job.
      kind: the kind of object, where the platform has several.
      namespace: the namespace, where the platform has some; "" is the default one.
    """

    backend: str
    job: str
    kind: str = ""
    namespace: str = ""

    def to_json(self) -> bytes:
        """Return the content of submission.json."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def read_submission(folder: Folder) -> SubmittedJob | None:
    """Return how a platform knows the job of a run directory; None if none was asked to run it."""
    try:
        return from_json_fields(SubmittedJob, json.loads(folder.read(SUBMISSION_FILE) or b""))
    except ValueError:
        return None
