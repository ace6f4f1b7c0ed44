"""Vertex AI: a CustomJob for ``gcloud ai custom-jobs create``.

The first worker pool is the chief, the second has the other workers. Vertex AI sets CLUSTER_SPEC
in every container, by which the workers join (see `launcher.cli.jobs.run_member`).
Formats: cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec,
cloud.google.com/sdk/gcloud/reference/ai/custom-jobs/create.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import GCS_SCHEMES
from tenfold.launcher.backends.base import Option, Submission, Submitted, Submitter
from tenfold.launcher.backends.platforms.yaml_text import to_yaml
from tenfold.launcher.job.job_spec import SubmittedJob

OPTIONS: Final = (
    Option("image", "container image with tenfold and your program"),
    Option("region", "region of the job: europe-west4 (default: gcloud's ai/region)"),
    Option("machine_type", "machine of each worker: n1-standard-8 (the default)"),
    Option("accelerator", "accelerators of each worker: NVIDIA_TESLA_T4:2"),
    Option("service_account", "the service account of the job"),
    Option("spot", "yes: run on spot machines"),
)
DEFAULT_MACHINE: Final = "n1-standard-8"
# Buckets that Vertex AI mounts in every container.
_MOUNTED: Final = "/gcs/"
_ACCELERATOR: Final = re.compile(r"([A-Z][A-Z0-9_]*)(?::([1-9]\d*))?")
_MACHINE: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_REGION: Final = re.compile(r"[a-z]+-[a-z]+\d+")
_SPOT: Final = {"": False, "no": False, "yes": True}


@dataclass(frozen=True)
class VertexSubmitter:
    """Renders a CustomJobSpec as YAML and gives it to gcloud.

    Attributes:
      image: the container image.
      region: the region; "" leaves it to gcloud.
      machine_type: the machine of each worker.
      accelerator: the type and number of its accelerators, None without.
      service_account: the service account; "" is the project's own.
      spot: run on spot machines.
    """

    image: str
    region: str = ""
    machine_type: str = DEFAULT_MACHINE
    accelerator: tuple[str, int] | None = None
    service_account: str = ""
    spot: bool = False
    far = True

    def render(self, submission: Submission) -> str:
        """Return the CustomJobSpec as YAML.

        Raises:
          UserError: the run directory would be lost with the containers, or PyYAML is missing.
        """
        run_dir = submission.spec.run_dir
        if not run_dir.startswith((*GCS_SCHEMES, _MOUNTED)):
            raise UserError(
                f"run_dir '{run_dir}' would be lost with the containers: give gs://… or "
                f"{_MOUNTED}…"
            )
        return to_yaml([self._spec(submission)])

    def _spec(self, submission: Submission) -> dict[str, Any]:
        others = submission.spec.num_workers - 1
        pools = [self._pool(submission, 1)] + ([self._pool(submission, others)] if others else [])
        scheduling: dict[str, Any] = {
            # A lone restarted worker cannot rejoin an all-reduce.
            "restartJobOnWorkerRestart": True,
            "disableRetries": submission.max_restarts == 0,
        }
        if self.spot:
            scheduling["strategy"] = "SPOT"
        account = {"serviceAccount": self.service_account} if self.service_account else {}
        return {"workerPoolSpecs": pools, "scheduling": scheduling, **account}

    def _pool(self, submission: Submission, replicas: int) -> dict[str, Any]:
        machine: dict[str, Any] = {"machineType": self.machine_type}
        if self.accelerator:
            machine["acceleratorType"], machine["acceleratorCount"] = self.accelerator
        env = [{"name": name, "value": value} for name, value in submission.spec.env.items()]
        return {
            "machineSpec": machine,
            "replicaCount": replicas,
            "containerSpec": {
                "imageUri": self.image,
                "command": list(submission.member_argv),
                "env": env,
            },
        }

    def submit(self, text: str, submission: Submission) -> Submitted:
        """Create the job with gcloud; return its name and how to follow it.

        Raises:
          UserError: there is no gcloud.
          JobError: gcloud fails.
        """
        region = (f"--region={self.region}",) if self.region else ()
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "job.yaml")
            config.write_text(text, encoding="utf-8")
            name = _gcloud(
                "create",
                f"--display-name={PurePosixPath(submission.spec.run_dir).name}",
                f"--config={config}",
                "--format=value(name)",
                *region,
            ).strip()
        message = f"created {name}\nfollow it with: gcloud ai custom-jobs stream-logs {name}"
        return Submitted(message, SubmittedJob("vertex", name))


def _gcloud(verb: str, *arguments: str) -> str:
    """Return the output of ``gcloud ai custom-jobs``.

    Raises:
      UserError: there is no gcloud.
      JobError: gcloud fails.
    """
    if shutil.which("gcloud") is None:
        raise UserError(
            "there is no gcloud here: install it, or give --dry_run and create the job from what "
            "it prints"
        )
    done = subprocess.run(
        ["gcloud", "ai", "custom-jobs", verb, *arguments], text=True, capture_output=True
    )
    if done.returncode:
        raise JobError(f"gcloud ai custom-jobs {verb} failed: {done.stderr.strip()}")
    return done.stdout


def job_state(job: SubmittedJob) -> str:
    """Return the state of a job: ``pending``, ``running``, ….

    Raises:
      UserError: there is no gcloud.
      JobError: gcloud fails.
    """
    state = _gcloud("describe", job.job, "--format=value(state)").strip()
    return state.removeprefix("JOB_STATE_").lower()


def cancel_job(job: SubmittedJob, *, running: bool) -> str:
    """Cancel a job; its containers get SIGTERM.

    Raises:
      UserError: there is no gcloud.
      JobError: gcloud fails.
    """
    del running  # a worker that stopped by itself would be started again
    _gcloud("cancel", job.job)
    return f"asked Vertex AI to cancel {job.job}"


def submitter(options: Mapping[str, str]) -> Submitter:
    """Return the submitter.

    Raises:
      UserError: the image is missing, or an option has a wrong value.
    """
    if not options.get("image"):
        raise UserError("--backend=vertex needs --image: one with tenfold in it")
    spot = options.get("spot", "")
    if spot not in _SPOT:
        raise UserError(f"spot '{spot}': on Vertex AI write --spot=yes")
    return VertexSubmitter(
        image=options["image"],
        region=_checked(options, "region", _REGION, "europe-west4"),
        machine_type=_checked(options, "machine_type", _MACHINE, DEFAULT_MACHINE)
        or DEFAULT_MACHINE,
        accelerator=_parse_accelerator(options.get("accelerator", "")),
        service_account=options.get("service_account", ""),
        spot=_SPOT[spot],
    )


def _checked(
    options: Mapping[str, str], name: str, pattern: "re.Pattern[str]", example: str
) -> str:
    value = options.get(name, "")
    if value and not pattern.fullmatch(value):
        raise UserError(f"{name} '{value}' cannot be one: write, for example, {example}")
    return value


def _parse_accelerator(text: str) -> tuple[str, int] | None:
    match = _ACCELERATOR.fullmatch(text)
    if text and match is None:
        raise UserError(f"accelerator '{text}': write TYPE or TYPE:COUNT, as NVIDIA_TESLA_T4:2")
    return (match[1], int(match[2] or 1)) if match else None
