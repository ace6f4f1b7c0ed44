"""The Kubernetes manifests of a job, as values and as YAML. Pure.

An Indexed Job with a headless Service, or a JobSet. A ConfigMap holds the job. Each pod finds its
worker index in a variable that Kubernetes sets (see `tenfold.launcher.supervisor.pod`).
Formats: kubernetes.io/docs/reference/kubernetes-api, jobset.sigs.k8s.io/docs/reference.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Submission
from tenfold.launcher.job.events import EXIT_NOT_FINITE, EXIT_PEER_FAILED, EXIT_PREEMPTED
from tenfold.launcher.job.job_spec import ClusterSpec, job_to_json
from tenfold.launcher.job.run_dir import JOB_FILE
from tenfold.launcher.worker.python_argv import remote_module_argv

PORT: Final = 2222
JOB_FOLDER: Final = "/etc/tenfold"
GRACE_S: Final = 60
REPLICATED_JOB: Final = "workers"
# A pod's name is the job's name, REPLICATED_JOB, the index and a suffix: a label of 63 characters.
_MAX_NAME: Final = 45
_DISRUPTED: Final = [{"type": "DisruptionTarget", "status": "True"}]
# Exits that are not the program's fault: preempted with a checkpoint, or a lost peer.
_EXTERNAL_CAUSE: Final = {"operator": "In", "values": [EXIT_PEER_FAILED, EXIT_PREEMPTED]}


@dataclass(frozen=True)
class Mount:
    """A volume claim or a secret, and the path where pods see it."""

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
    """Settings that all pods of a job share; an empty setting is left to the cluster."""

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


def job_name(submission: Submission) -> str:
    """Return a name that Kubernetes accepts, made of the run directory's."""
    folder = PurePosixPath(submission.spec.run_dir).name.lower()
    name = re.sub(r"[^a-z0-9-]+", "-", folder)[:_MAX_NAME].strip("-")
    return name if name and name[0].isalpha() else f"tenfold-{name}".strip("-")


def pod_addresses(name: str, num_workers: int, kind: str) -> tuple[str, ...]:
    """Return the pods' ``host:port`` under the headless Service, by index.

    Names: kubernetes.io/docs/concepts/workloads/controllers/job (Indexed), and
    jobset.sigs.k8s.io/docs/concepts (JOBSET-REPLICATEDJOB-JOBINDEX-PODINDEX).

    Args:
      name: the job's name, as `job_name` makes it.
      num_workers: how many pods there are.
      kind: ``job`` or ``jobset``.
    """
    pod = name if kind == "job" else f"{name}-{REPLICATED_JOB}-0"
    return tuple(f"{pod}-{index}.{name}:{PORT}" for index in range(num_workers))


def manifests(submission: Submission, shape: PodShape) -> list[dict[str, Any]]:
    """Return all manifests of a job, in the order in which they are to be applied."""
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
        # Workers look each other up before any of them is ready.
        "publishNotReadyAddresses": True,
        "ports": [{"name": "grpc", "port": PORT}],
    }
    job = _object("batch/v1", "Job", name, shape)
    job["spec"] = _indexed_job(name, submission, shape)
    return [config, policy, service, job]


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "tenfold", "app.kubernetes.io/instance": name}


def _object(version: str, kind: str, name: str, shape: PodShape) -> dict[str, Any]:
    namespace = {"namespace": shape.namespace} if shape.namespace else {}
    metadata = {"name": name, **namespace, "labels": _labels(name)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _only_peers(name: str) -> dict[str, Any]:
    """A policy that admits only the job's own pods; the workers' gRPC servers check nobody."""
    own = {"podSelector": {"matchLabels": _labels(name)}}
    return {
        **own,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [own], "ports": [{"protocol": "TCP", "port": PORT}]}],
    }


def _indexed_job(name: str, submission: Submission, shape: PodShape) -> dict[str, Any]:
    """The spec of a Job that replaces failed pods.

    The peers of a failed pod exit with EXIT_PEER_FAILED and are replaced too.
    """
    rules: list[dict[str, Any]] = [
        {"action": "Ignore", "onPodConditions": _DISRUPTED},
        {"action": "Ignore", "onExitCodes": {"containerName": "worker", **_EXTERNAL_CAUSE}},
    ]
    if submission.spec.train:
        hopeless = {"containerName": "worker", "operator": "In", "values": [EXIT_NOT_FINITE]}
        rules.append({"action": "FailJob", "onExitCodes": hopeless})
    return {
        **_completions(submission),
        "backoffLimit": submission.max_restarts,
        "podFailurePolicy": {"rules": rules},
        "template": _pod(name, shape, restart_label=""),
    }


def _completions(submission: Submission) -> dict[str, Any]:
    count = submission.spec.num_workers
    return {"completionMode": "Indexed", "completions": count, "parallelism": count}


def _jobset(name: str, submission: Submission, shape: PodShape) -> dict[str, Any]:
    """A JobSet: a failed pod fails its Job, and the JobSet starts all pods again."""
    rules = [
        {"action": "FailJob", "onPodConditions": _DISRUPTED},
        {"action": "FailJob", "onExitCodes": {"containerName": "worker", **_EXTERNAL_CAUSE}},
    ]
    job = {
        **_completions(submission),
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
        "replicatedJobs": [{"name": REPLICATED_JOB, "replicas": 1, "template": {"spec": job}}],
    }
    return jobset


def _pod(name: str, shape: PodShape, *, restart_label: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [_container(shape, restart_label)],
        "volumes": _volumes(name, shape),
    }
    if not restart_label:  # the JobSet controller sets the subdomain of its pods
        spec["subdomain"] = name
    if shape.service_account:
        spec["serviceAccountName"] = shape.service_account
    return {"metadata": {"labels": _labels(name)}, "spec": spec}


def _container(shape: PodShape, restart_label: str) -> dict[str, Any]:
    amounts = {"cpu": shape.cpus, "memory": shape.memory}
    resources = {key: value for key, value in amounts.items() if value}
    if shape.gpus:
        resources["nvidia.com/gpu"] = str(shape.gpus)
    return {
        "name": "worker",
        "image": shape.image,
        "command": [*remote_module_argv("tenfold.launcher.supervisor.pod", python="python")],
        "env": _env(shape, restart_label),
        "ports": [{"name": "grpc", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": resources, "limits": resources} if resources else {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(shape),
    }


def _env(shape: PodShape, restart_label: str) -> list[dict[str, Any]]:
    env: list[dict[str, Any]] = [{"name": "TENFOLD_JOB_FILE", "value": f"{JOB_FOLDER}/{JOB_FILE}"}]
    if shape.google_credentials:
        env.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": shape.google_credentials})
    for variable in shape.secret_env:
        source = {"secretKeyRef": {"name": variable.secret, "key": variable.key}}
        env.append({"name": variable.name, "valueFrom": source})
    if restart_label:
        path = {"fieldRef": {"fieldPath": f"metadata.labels['{restart_label}']"}}
        env.append({"name": "TENFOLD_RESTART", "valueFrom": path})
    return env


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
        {"name": "shm", "emptyDir": {"medium": "Memory"}},  # NCCL needs more than 64 MB
        *(
            {"name": f"claim-{i}", "persistentVolumeClaim": {"claimName": mount.name}}
            for i, mount in enumerate(shape.claims)
        ),
        *(
            {"name": f"secret-{i}", "secret": {"secretName": mount.name}}
            for i, mount in enumerate(shape.secrets)
        ),
    ]


# Other strings are quoted: 1e3, y and 0o17 are text to PyYAML, but not to Kubernetes' parser.
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./:@-]+")
# YAML 1.1 has further line breaks, which a literal block would turn into "\n".
_OTHER_BREAK: Final = re.compile("[\r\x85\u2028\u2029]")


def to_yaml(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return one YAML text of several documents in block style, keys in their given order.

    Raises:
      UserError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise UserError(
            "--backend=kubernetes needs PyYAML: pip install 'tenfold[kubernetes]'"
        ) from error

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True  # a list that stands twice is written twice, without anchors

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        is_block = "\n" in text and not _OTHER_BREAK.search(text)
        style = "|" if is_block else None if _PLAIN.fullmatch(text) else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    text: str = yaml.dump_all(
        documents, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text
