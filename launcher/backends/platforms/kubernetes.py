"""The Kubernetes back end: options of `launch` to pod settings, manifests to kubectl."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import is_url
from tenfold.launcher.backends.base import Option, Submission, Submitted, Submitter
from tenfold.launcher.backends.platforms.kubernetes_manifests import (
    SPOT_NODES,
    Mount,
    PodShape,
    SecretVariable,
    job_name,
    manifests,
)
from tenfold.launcher.backends.platforms.yaml_text import import_yaml, to_yaml
from tenfold.launcher.job.job_spec import SubmittedJob

OPTIONS: Final = (
    Option("image", "container image with tenfold and your program"),
    Option(
        "kubernetes_kind",
        "job (an Indexed Job, the default), jobset (restarts all workers together), trainjob "
        "(Kubeflow Trainer) or tfjob (Kubeflow's Training Operator v1)",
    ),
    Option("namespace", "namespace of the job (default: kubectl's)"),
    Option("service_account", "the pods' service account, for example one bound to a GCS account"),
    Option("volumes", "volume claims and their mount paths: CLAIM:/PATH,CLAIM:/PATH"),
    Option("secrets", "secrets by name and their mount paths: NAME:/PATH,NAME:/PATH"),
    Option(
        "secret_env",
        "variables from secrets of the cluster: VARIABLE=SECRET:KEY,… (KEY defaults to the name "
        "of the variable)",
    ),
    Option("google_credentials", "path in the pods of a Google service account's key (a secret)"),
    Option("pod_cpus", "cores per worker: 4"),
    Option("pod_memory", "memory per worker, as Kubernetes writes it: 16Gi"),
    Option("pod_gpus", "GPUs per worker (nvidia.com/gpu): 1"),
    Option(
        "pod_patch", "YAML or JSON file to merge into the pod template (its metadata and spec)"
    ),
    Option("queue", "queue of Kueue for the job"),
    Option("spot", "run on spot machines of gke, eks, aks or karpenter; yes on Vertex AI"),
    Option("ttl", "how long the finished job is kept: 3600 (seconds), 90m, 12h, 7d"),
)
KINDS: Final = ("job", "jobset", "trainjob", "tfjob")
_TTL: Final = re.compile(r"(\d+)([smhd]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SECRET_VARIABLE: Final = re.compile(
    rf"(?P<name>[A-Za-z_]\w*)=(?P<secret>{_NAME.pattern})(?::(?P<key>[\w.-]+))?", re.ASCII
)
_QUANTITY: Final = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTP]i?)?")


class KubernetesSubmitter:
    """Renders manifests and applies them with kubectl."""

    far = True

    def __init__(self, shape: PodShape) -> None:
        self._shape = shape

    def render(self, submission: Submission) -> str:
        """Return the manifests as YAML, in the order in which they are to be applied.

        Raises:
          UserError: the run directory would be lost with the pods, or PyYAML is missing.
        """
        _check_run_dir(submission, self._shape)
        return to_yaml(manifests(submission, self._shape))

    def submit(self, text: str, submission: Submission) -> Submitted:
        """Apply the manifests with kubectl; return the job, with its output and how to follow it.

        Raises:
          UserError: there is no kubectl.
          JobError: kubectl fails.
        """
        shown = _kubectl("apply", "-f", "-", text=text).rstrip()
        name = job_name(submission)
        namespace = f" --namespace {self._shape.namespace}" if self._shape.namespace else ""
        follow = (
            f"kubectl logs --follow --prefix{namespace} --selector app.kubernetes.io/instance="
        )
        return Submitted(
            f"{shown}\nfollow it with: {follow}{name}",
            SubmittedJob("kubernetes", name, self._shape.kind, self._shape.namespace),
        )


def _kubectl(*arguments: str, text: str = "") -> str:
    """Return the output of kubectl.

    Raises:
      UserError: there is no kubectl.
      JobError: kubectl fails.
    """
    if shutil.which("kubectl") is None:
        raise UserError(
            "there is no kubectl here: install it, or give --dry_run and apply what it prints"
        )
    done = subprocess.run(["kubectl", *arguments], input=text, text=True, capture_output=True)
    if done.returncode:
        raise JobError(f"kubectl {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def _object_arguments(job: SubmittedJob) -> tuple[str, ...]:
    namespace = ("--namespace", job.namespace) if job.namespace else ()
    return (job.kind, job.job, *namespace)


def job_state(job: SubmittedJob) -> str:
    """Return the conditions of a job, or how many of its pods run, have succeeded and failed.

    Raises:
      UserError: there is no kubectl.
      JobError: kubectl fails, as for a job that was deleted.
    """
    found = json.loads(_kubectl("get", *_object_arguments(job), "--output=json"))
    status = found.get("status", {})
    conditions = [
        str(condition.get("type", "")).lower()
        for condition in status.get("conditions", [])
        if condition.get("status") == "True"
    ]
    if conditions:
        return ", ".join(conditions)
    counts = [f"{status.get(name, 0)} {name}" for name in ("active", "succeeded", "failed")]
    return f"pods: {', '.join(counts)}" if job.kind == "job" else "running"


def cancel_job(job: SubmittedJob, *, running: bool) -> str:
    """Delete a job; its pods get SIGTERM, and the built-in trainer saves a checkpoint.

    Raises:
      UserError: there is no kubectl.
      JobError: kubectl fails.
    """
    del running  # a worker that stopped by itself would be replaced
    return _kubectl("delete", *_object_arguments(job), "--wait=false").rstrip()


def _check_run_dir(submission: Submission, shape: PodShape) -> None:
    if is_url(submission.spec.run_dir):
        return
    run_dir = PurePosixPath(submission.spec.run_dir)
    on_claim = any(run_dir.is_relative_to(mount.path) for mount in shape.claims)
    if submission.spec.train and not on_claim:
        raise UserError(
            f"run_dir '{run_dir}' is on none of --volumes and would be lost with the pods: give "
            "gs://…, or a path on a volume that all pods can write to (ReadWriteMany)"
        )


def submitter(options: Mapping[str, str]) -> Submitter:
    """Return the submitter.

    Raises:
      UserError: the image is missing, or an option has a wrong value.
    """
    return KubernetesSubmitter(parse_pod_shape(options))


def parse_pod_shape(options: Mapping[str, str]) -> PodShape:
    """Return the pod settings that OPTIONS ask for.

    Raises:
      UserError: the image is missing, or an option has a wrong value.
    """
    if not options.get("image"):
        raise UserError("--backend=kubernetes needs --image: one with tenfold in it")
    kind = options.get("kubernetes_kind", "job")
    if kind not in KINDS:
        raise UserError(f"kubernetes_kind '{kind}' is none of {', '.join(KINDS)}")
    gpus = options.get("pod_gpus", "0")
    if not gpus.isdecimal():
        raise UserError(f"pod_gpus '{gpus}' is not a whole number")
    return PodShape(
        image=options["image"],
        kind=kind,
        namespace=_name(options, "namespace"),
        service_account=_name(options, "service_account"),
        claims=_parse_mounts(options, "volumes"),
        secrets=_parse_mounts(options, "secrets"),
        secret_env=_parse_secret_env(options.get("secret_env", "")),
        google_credentials=options.get("google_credentials", ""),
        cpus=_quantity(options, "pod_cpus"),
        memory=_quantity(options, "pod_memory"),
        gpus=int(gpus),
        queue=_name(options, "queue"),
        spot=_parse_spot(options.get("spot", "")),
        ttl_s=_parse_ttl(options.get("ttl", "")),
        patch=_read_patch(options.get("pod_patch", "")),
    )


def _parse_spot(name: str) -> str:
    if name and name not in SPOT_NODES:
        raise UserError(f"spot '{name}' is none of {', '.join(SPOT_NODES)}")
    return name


def _parse_ttl(text: str) -> int | None:
    match = _TTL.fullmatch(text)
    if text and match is None:
        raise UserError(f"ttl '{text}': write 3600 (seconds), 90m, 12h or 7d")
    return int(match[1]) * _SECONDS[match[2]] if match else None


def _read_patch(path: str) -> Mapping[str, Any]:
    """Return the patch in a YAML or JSON file; empty without a file.

    Raises:
      UserError: it cannot be read, or is not a patch of a pod template; or PyYAML is missing.
    """
    if not path:
        return {}
    yaml = import_yaml()
    try:
        patch = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"pod_patch '{path}' cannot be read: {reason}") from error
    if not isinstance(patch, dict) or not set(patch) <= {"metadata", "spec"}:
        raise UserError(
            f"pod_patch '{path}' has to be an object with 'spec', 'metadata' or both, as a pod "
            "template has them"
        )
    return patch


def _name(options: Mapping[str, str], option: str) -> str:
    name = options.get(option, "")
    if name and not _NAME.fullmatch(name):
        raise UserError(
            f"{option} '{name}' is no name in Kubernetes: lower-case letters, digits, -"
        )
    return name


def _quantity(options: Mapping[str, str], option: str) -> str:
    amount = options.get(option, "")
    if amount and not _QUANTITY.fullmatch(amount):
        raise UserError(f"{option} '{amount}' is no quantity in Kubernetes: write 4, 500m or 16Gi")
    return amount


def _parse_mounts(options: Mapping[str, str], option: str) -> tuple[Mount, ...]:
    mounts = []
    for part in filter(None, options.get(option, "").split(",")):
        name, _, path = part.partition(":")
        if not _NAME.fullmatch(name) or not path.startswith("/"):
            raise UserError(f"{option} '{part}': write NAME:/PATH,NAME:/PATH")
        mounts.append(Mount(name, path))
    return tuple(mounts)


def _parse_secret_env(text: str) -> tuple[SecretVariable, ...]:
    variables = []
    for part in filter(None, text.split(",")):
        match = _SECRET_VARIABLE.fullmatch(part)
        if match is None:
            name = part.partition("=")[0]  # the rest may be a secret value, given by mistake
            raise UserError(
                f"secret_env '{name}=…': write VARIABLE=SECRET:KEY, where SECRET is the name of a "
                "Secret in the cluster (kubectl create secret generic SECRET …)"
            )
        key = match["key"] or match["name"]
        variables.append(SecretVariable(match["name"], match["secret"], key))
    return tuple(variables)
