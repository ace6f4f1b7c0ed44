"""Jobs for Kubernetes: rendered manifests, which the platform starts and supervises.

An Indexed Job with a headless Service, or a JobSet. Each pod finds its place by the index that
Kubernetes gives it (see `tenfold.launcher.supervisor.pod`); what to run lies in a ConfigMap.
Formats:
kubernetes.io/docs/reference/kubernetes-api, jobset.sigs.k8s.io/docs/reference.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import is_url
from tenfold.launcher.backends.base import Option, Submission, Submitter
from tenfold.launcher.backends.yaml_text import to_yaml
from tenfold.launcher.job.events import EXIT_PEER_FAILED, EXIT_PREEMPTED
from tenfold.launcher.job.job_spec import ClusterSpec, job_to_json
from tenfold.launcher.job.run_dir import JOB_FILE
from tenfold.launcher.worker.python_argv import remote_module_argv

OPTIONS: Final = (
    Option("image", "container image with tenfold and your program"),
    Option(
        "kubernetes_kind", "job (an Indexed Job, the default) or jobset (restarts whole gangs)"
    ),
    Option("namespace", "namespace of the job (default: kubectl's)"),
    Option("service_account", "the pods' service account, as one bound to a GCS account"),
    Option("volumes", "volume claims and where they are mounted: CLAIM:/PATH,CLAIM:/PATH"),
    Option("secrets", "secrets and where they are mounted: NAME:/PATH; NAME is all that is told"),
    Option(
        "secret_env",
        "variables that come from secrets of the cluster: VARIABLE=SECRET:KEY,… (KEY: the same "
        "name as the variable's)",
    ),
    Option("google_credentials", "path in the pods of a Google service account's key (a secret)"),
    Option("pod_cpus", "cores per worker: 4"),
    Option("pod_memory", "memory per worker, as Kubernetes writes it: 16Gi"),
    Option("pod_gpus", "GPUs per worker (nvidia.com/gpu): 1"),
)
KINDS: Final = ("job", "jobset")
PORT: Final = 2222
JOB_FOLDER: Final = "/etc/tenfold"
GRACE_S: Final = 60
REPLICATED: Final = "workers"
# Names of pods are this, the index and a suffix, in a label of 63 characters.
_MAX_NAME: Final = 45
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SECRET_VARIABLE: Final = re.compile(
    rf"(?P<name>[A-Za-z_]\w*)=(?P<secret>{_NAME.pattern})(?::(?P<key>[\w.-]+))?", re.ASCII
)
_QUANTITY: Final = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTP]i?)?")


@dataclass(frozen=True)
class Mount:
    """A claim or a secret, and the path where pods see it."""

    name: str
    path: str


@dataclass(frozen=True)
class SecretVariable:
    """An environment variable whose value is `key` of the Secret `secret`."""

    name: str
    secret: str
    key: str


@dataclass(frozen=True)
class PodShape:
    """What every worker's pod is like; empty: not said."""

    image: str
    kind: str = "job"
    namespace: str = ""
    service_account: str = ""
    claims: tuple[Mount, ...] = ()
    secrets: tuple[Mount, ...] = ()
    secret_env: tuple[SecretVariable, ...] = ()
    google_credentials: str = ""
    cpus: str = ""
    memory: str = ""
    gpus: int = 0


class KubernetesSubmitter:
    """Renders manifests, and gives them to kubectl."""

    far = True

    def __init__(self, shape: PodShape) -> None:
        self._shape = shape

    def render(self, submission: Submission) -> str:
        """Returns the manifests as YAML, in the order in which they are to be made."""
        _check_run_dir(submission, self._shape)
        return to_yaml(manifests(submission, self._shape))

    def submit(self, text: str, submission: Submission) -> str:
        """Applies the manifests with kubectl; returns what it said and how to go on."""
        if shutil.which("kubectl") is None:
            raise UserError(
                "there is no kubectl here: install it, or give --dry_run and apply what it prints"
            )
        done = subprocess.run(
            ["kubectl", "apply", "-f", "-"], input=text, text=True, capture_output=True
        )
        if done.returncode:
            raise JobError(f"kubectl apply failed: {done.stderr.strip()}")
        name = job_name(submission)
        where = f" --namespace {self._shape.namespace}" if self._shape.namespace else ""
        follow = f"kubectl logs --follow --prefix{where} --selector app.kubernetes.io/instance="
        return f"{done.stdout.rstrip()}\nfollow it with: {follow}{name}"


def _check_run_dir(submission: Submission, shape: PodShape) -> None:
    if is_url(submission.spec.run_dir):
        return
    run_dir = PurePosixPath(submission.spec.run_dir)
    on_claim = any(run_dir.is_relative_to(mount.path) for mount in shape.claims)
    if submission.spec.train and not on_claim:
        raise UserError(
            f"run_dir '{run_dir}' is on none of --volumes: give gs://…, or a path below one that "
            "all pods can write to (ReadWriteMany): what lies elsewhere is lost with the pods"
        )


def job_name(submission: Submission) -> str:
    """Returns a name that Kubernetes takes, made of the run directory's."""
    folder = PurePosixPath(submission.spec.run_dir).name.lower()
    name = re.sub(r"[^a-z0-9-]+", "-", folder)[:_MAX_NAME].strip("-")
    return name if name and name[0].isalpha() else f"tenfold-{name}".strip("-")


def pod_addresses(name: str, num_workers: int, kind: str) -> tuple[str, ...]:
    """Returns the pods' ``host:port`` under the headless Service, by index.

    Names: kubernetes.io/docs/concepts/workloads/controllers/job (Indexed), and
    jobset.sigs.k8s.io/docs/concepts (JOBSET-REPLICATEDJOB-JOBINDEX-PODINDEX).
    """
    pod = name if kind == "job" else f"{name}-{REPLICATED}-0"
    return tuple(f"{pod}-{index}.{name}:{PORT}" for index in range(num_workers))


def manifests(submission: Submission, shape: PodShape) -> list[dict[str, Any]]:
    """Returns all manifests of a job. Pure."""
    name = job_name(submission)
    cluster = ClusterSpec(pod_addresses(name, submission.spec.num_workers, shape.kind))
    config = _object("v1", "ConfigMap", name, shape)
    config["data"] = {JOB_FILE: job_to_json(submission.spec, cluster)}
    policy = _object("networking.k8s.io/v1", "NetworkPolicy", name, shape)
    policy["spec"] = _only_peers(name)
    if shape.kind == "jobset":
        return [config, policy, _jobset(name, submission, shape)]
    service = _object("v1", "Service", name, shape)
    service["spec"] = {
        "clusterIP": "None",
        "selector": _labels(name),
        # Workers look for each other before any of them is ready.
        "publishNotReadyAddresses": True,
        "ports": [{"name": "grpc", "port": PORT}],
    }
    job = _object("batch/v1", "Job", name, shape)
    job["spec"] = _indexed_job(name, submission, shape)
    return [config, policy, service, job]


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "tenfold", "app.kubernetes.io/instance": name}


def _object(version: str, kind: str, name: str, shape: PodShape) -> dict[str, Any]:
    where = {"namespace": shape.namespace} if shape.namespace else {}
    metadata = {"name": name, **where, "labels": _labels(name)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _only_peers(name: str) -> dict[str, Any]:
    """The workers' gRPC servers ask nobody who they are: only the job's own pods get in."""
    own = {"podSelector": {"matchLabels": _labels(name)}}
    return {
        **own,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [own], "ports": [{"protocol": "TCP", "port": PORT}]}],
    }


_DISRUPTED: Final = [{"type": "DisruptionTarget", "status": "True"}]
# What is no fault of the program: preempted with a checkpoint, or a peer was.
_NOT_ITS_FAULT: Final = {"operator": "In", "values": [EXIT_PEER_FAILED, EXIT_PREEMPTED]}


def _indexed_job(name: str, submission: Submission, shape: PodShape) -> dict[str, Any]:
    """A pod that fails comes again; the others exit as its peers, and come again too."""
    rules = [
        {"action": "Ignore", "onPodConditions": _DISRUPTED},
        {"action": "Ignore", "onExitCodes": {"containerName": "worker", **_NOT_ITS_FAULT}},
    ]
    return {
        **_processes(submission),
        "backoffLimit": submission.max_restarts,
        "podFailurePolicy": {"rules": rules},
        "template": _pod(name, shape, restart_label=""),
    }


def _processes(submission: Submission) -> dict[str, Any]:
    count = submission.spec.num_workers
    return {"completionMode": "Indexed", "completions": count, "parallelism": count}


def _jobset(name: str, submission: Submission, shape: PodShape) -> dict[str, Any]:
    """One failed pod fails the Job, and the JobSet starts all pods anew."""
    rules = [
        {"action": "FailJob", "onPodConditions": _DISRUPTED},
        {"action": "FailJob", "onExitCodes": {"containerName": "worker", **_NOT_ITS_FAULT}},
    ]
    job = {
        **_processes(submission),
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": rules},
        "template": _pod(name, shape, restart_label="jobset.sigs.k8s.io/restart-attempt"),
    }
    preempted = {
        "name": "preempted",
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    jobset = _object("jobset.x-k8s.io/v1alpha2", "JobSet", name, shape)
    jobset["spec"] = {
        "network": {"enableDNSHostnames": True, "subdomain": name},
        "failurePolicy": {"maxRestarts": submission.max_restarts, "rules": [preempted]},
        "replicatedJobs": [{"name": REPLICATED, "replicas": 1, "template": {"spec": job}}],
    }
    return jobset


def _pod(name: str, shape: PodShape, *, restart_label: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [_container(shape, restart_label)],
        "volumes": _volumes(name, shape),
    }
    if not restart_label:  # a JobSet sets it itself
        spec["subdomain"] = name
    if shape.service_account:
        spec["serviceAccountName"] = shape.service_account
    return {"metadata": {"labels": _labels(name)}, "spec": spec}


def _container(shape: PodShape, restart_label: str) -> dict[str, Any]:
    env: list[dict[str, Any]] = [{"name": "TENFOLD_JOB_FILE", "value": f"{JOB_FOLDER}/{JOB_FILE}"}]
    if shape.google_credentials:
        env.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": shape.google_credentials})
    for one in shape.secret_env:
        source = {"secretKeyRef": {"name": one.secret, "key": one.key}}
        env.append({"name": one.name, "valueFrom": source})
    if restart_label:
        path = {"fieldRef": {"fieldPath": f"metadata.labels['{restart_label}']"}}
        env.append({"name": "TENFOLD_RESTART", "valueFrom": path})
    amounts = {"cpu": shape.cpus, "memory": shape.memory}
    resources = {key: value for key, value in amounts.items() if value}
    if shape.gpus:
        resources["nvidia.com/gpu"] = str(shape.gpus)
    return {
        "name": "worker",
        "image": shape.image,
        "command": [*remote_module_argv("tenfold.launcher.supervisor.pod", python="python")],
        "env": env,
        "ports": [{"name": "grpc", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": resources, "limits": resources} if resources else {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(shape),
    }


def _mounts(shape: PodShape) -> list[dict[str, Any]]:
    return [
        {"name": "job", "mountPath": JOB_FOLDER, "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},
        *({"name": f"claim-{i}", "mountPath": m.path} for i, m in enumerate(shape.claims)),
        *(
            {"name": f"secret-{i}", "mountPath": m.path, "readOnly": True}
            for i, m in enumerate(shape.secrets)
        ),
    ]


def _volumes(name: str, shape: PodShape) -> list[dict[str, Any]]:
    return [
        {"name": "job", "configMap": {"name": name}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},  # NCCL wants more than 64 MB
        *(
            {"name": f"claim-{i}", "persistentVolumeClaim": {"claimName": mount.name}}
            for i, mount in enumerate(shape.claims)
        ),
        *(
            {"name": f"secret-{i}", "secret": {"secretName": mount.name}}
            for i, mount in enumerate(shape.secrets)
        ),
    ]


def submitter(options: Mapping[str, str]) -> Submitter:
    """Returns the submitter.

    Raises:
      UserError: the image is missing, or an option has a wrong value.
    """
    return KubernetesSubmitter(parse_pod_shape(options))


def parse_pod_shape(options: Mapping[str, str]) -> PodShape:
    """Returns what pods are like under OPTIONS.

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
    )


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
    text = options.get(option, "")
    mounts = []
    for part in filter(None, text.split(",")):
        name, _, path = part.partition(":")
        if not _NAME.fullmatch(name) or not path.startswith("/"):
            raise UserError(f"{option} '{part}': write NAME:/PATH,NAME:/PATH")
        mounts.append(Mount(name, path))
    return tuple(mounts)


def _parse_secret_env(text: str) -> tuple[SecretVariable, ...]:
    found = []
    for part in filter(None, text.split(",")):
        match = _SECRET_VARIABLE.fullmatch(part)
        if match is None:
            name = part.partition("=")[0]  # the rest may be a value, put there by mistake
            raise UserError(
                f"secret_env '{name}=…': write VARIABLE=SECRET:KEY, where SECRET is the name of a "
                "Secret in the cluster (kubectl create secret generic SECRET …)"
            )
        found.append(SecretVariable(match["name"], match["secret"], match["key"] or match["name"]))
    return tuple(found)
