"""The Kubernetes manifests of a job, as values. Pure.

An Indexed Job with a headless Service, or a JobSet. A ConfigMap holds the job. Each pod finds its
worker index in a variable that Kubernetes sets (see `tenfold.launcher.supervisor.members.pod`).
Formats: kubernetes.io/docs/reference/kubernetes-api, jobset.sigs.k8s.io/docs/reference.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Submission
from tenfold.launcher.backends.platforms.strategic_merge import merge
from tenfold.launcher.job.events import EXIT_NOT_FINITE, EXIT_PEER_FAILED, EXIT_PREEMPTED
from tenfold.launcher.job.job_spec import ClusterSpec, job_to_json
from tenfold.launcher.job.run_dir import JOB_FILE
from tenfold.launcher.worker.python_argv import remote_module_argv

PORT: Final = 2222
JOB_FOLDER: Final = "/etc/tenfold"
GRACE_S: Final = 60
_POD_MODULE: Final = "tenfold.launcher.supervisor.members.pod"
REPLICATED_JOB: Final = "workers"
# The names by which Kubeflow's controllers know the job and the container to train in.
TRAINER_JOB: Final = "node"
TFJOB_CONTAINER: Final = "tensorflow"
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
# The label of spot machines, and whether they have a taint of the same key and value.
SPOT_NODES: Final = {
    "gke": ("cloud.google.com/gke-spot", "true", True),
    "eks": ("eks.amazonaws.com/capacityType", "SPOT", False),
    "aks": ("kubernetes.azure.com/scalesetpriority", "spot", True),
    "karpenter": ("karpenter.sh/capacity-type", "spot", False),
}
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
    """Settings that all pods of a job share; an empty setting is left to the cluster.

    `queue` is a queue of Kueue, `spot` one of SPOT_NODES, and `patch` is merged into the pod
    template, in which the container is called ``worker``.
    """

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
    queue: str = ""
    spot: str = ""
    ttl_s: int | None = None
    patch: Mapping[str, Any] = field(default_factory=dict)


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
      kind: ``job``, ``jobset`` or ``trainjob``.
    """
    replicated = TRAINER_JOB if kind == "trainjob" else REPLICATED_JOB
    pod = name if kind == "job" else f"{name}-{replicated}-0"
    return tuple(f"{pod}-{index}.{name}:{PORT}" for index in range(num_workers))


def manifests(submission: Submission, shape: PodShape) -> list[dict[str, Any]]:
    """Return all manifests of a job, in the order in which they are to be applied.

    Raises:
      UserError: the patch cannot be merged.
    """
    name = job_name(submission)
    policy = _object("networking.k8s.io/v1", "NetworkPolicy", name, shape)
    policy["spec"] = _only_peers(name)
    if shape.kind == "tfjob":  # the operator sets TF_CONFIG, and makes a Service of each pod
        return [policy, _tfjob(name, submission, shape)]
    cluster = ClusterSpec(pod_addresses(name, submission.spec.num_workers, shape.kind))
    config = _object("v1", "ConfigMap", name, shape)
    config["data"] = {JOB_FILE: job_to_json(submission.spec, cluster)}
    if shape.kind == "jobset":
        return [config, policy, _jobset(name, submission, shape)]
    if shape.kind == "trainjob":
        return [config, policy, *_trainjob(name, submission, shape)]
    service = _object("v1", "Service", name, shape)
    service["spec"] = {
        "clusterIP": "None",
        "selector": _labels(name),
        # Workers look each other up before any of them is ready.
        "publishNotReadyAddresses": True,
        "ports": [{"name": "grpc", "port": PORT}],
    }
    job = _queued("batch/v1", "Job", name, shape)
    job["spec"] = _indexed_job(name, submission, shape)
    return [config, policy, service, job]


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "tenfold", "app.kubernetes.io/instance": name}


def _object(version: str, kind: str, name: str, shape: PodShape) -> dict[str, Any]:
    namespace = {"namespace": shape.namespace} if shape.namespace else {}
    metadata = {"name": name, **namespace, "labels": _labels(name)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _queued(version: str, kind: str, name: str, shape: PodShape) -> dict[str, Any]:
    """An object that runs pods, in a queue of Kueue if there is one."""
    found = _object(version, kind, name, shape)
    if shape.queue:
        found["metadata"]["labels"][QUEUE_LABEL] = shape.queue
    return found


def _ttl(shape: PodShape) -> dict[str, int]:
    return {} if shape.ttl_s is None else {"ttlSecondsAfterFinished": shape.ttl_s}


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
        **_ttl(shape),
        "template": _pod(name, shape),
    }


def _completions(submission: Submission) -> dict[str, Any]:
    count = submission.spec.num_workers
    return {"completionMode": "Indexed", "completions": count, "parallelism": count}


def _jobset(name: str, submission: Submission, shape: PodShape) -> dict[str, Any]:
    """A JobSet: a failed pod fails its Job, and the JobSet starts all pods again."""
    jobset = _queued("jobset.x-k8s.io/v1alpha2", "JobSet", name, shape)
    jobset["spec"] = {
        "network": {"enableDNSHostnames": True, "subdomain": name},
        **_jobset_spec(name, submission, shape, replicated=REPLICATED_JOB, container="worker"),
    }
    return jobset


def _jobset_spec(
    name: str, submission: Submission, shape: PodShape, *, replicated: str, container: str
) -> dict[str, Any]:
    rules = [
        {"action": "FailJob", "onPodConditions": _DISRUPTED},
        {"action": "FailJob", "onExitCodes": {"containerName": container, **_EXTERNAL_CAUSE}},
    ]
    pod = _pod(name, shape, restart_label="jobset.sigs.k8s.io/restart-attempt")
    job = {
        **_completions(submission),
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": rules},
        "template": _renamed(pod, container),
    }
    preempted = {
        "name": "preempted",
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "failurePolicy": {"maxRestarts": submission.max_restarts, "rules": [preempted]},
        **_ttl(shape),
        "replicatedJobs": [{"name": replicated, "replicas": 1, "template": {"spec": job}}],
    }


def _trainjob(name: str, submission: Submission, shape: PodShape) -> list[dict[str, Any]]:
    """A TrainJob of Kubeflow Trainer and its runtime.

    The Trainer has no runtime for TensorFlow, so this one is plain: the pods make TF_CONFIG.
    Format: kubeflow.org/docs/components/trainer/operator-guides/runtime.
    """
    version = "trainer.kubeflow.org/v1alpha1"
    nodes = submission.spec.num_workers
    spec = _jobset_spec(name, submission, shape, replicated=TRAINER_JOB, container=TRAINER_JOB)
    # The step whose pods the TrainJob counts and configures.
    step = {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}
    template = spec["replicatedJobs"][0]["template"]
    spec["replicatedJobs"][0]["template"] = {"metadata": step, **template}
    runtime = _object(version, "TrainingRuntime", name, shape)
    runtime["spec"] = {"mlPolicy": {"numNodes": nodes}, "template": {"spec": spec}}
    trainjob = _queued(version, "TrainJob", name, shape)
    trainjob["spec"] = {
        "runtimeRef": {
            "apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": name,
        },
        "trainer": {"numNodes": nodes},
    }  # fmt: skip
    return [runtime, trainjob]


def _tfjob(name: str, submission: Submission, shape: PodShape) -> dict[str, Any]:
    """A TFJob of Kubeflow's Training Operator v1, whose pods join by TF_CONFIG.

    Every failed worker takes its peers along, so each restart of the job counts once a pod.
    Format: kubeflow.org/docs/components/trainer/legacy-v1/user-guides/tensorflow.
    """
    pod = _pod(name, shape)
    del pod["spec"]["restartPolicy"], pod["spec"]["subdomain"]
    pod["spec"]["volumes"] = [v for v in pod["spec"]["volumes"] if v["name"] != "job"]
    (container,) = (each for each in pod["spec"]["containers"] if each["name"] == "worker")
    container["command"] = list(submission.member_argv)
    container["env"] = [each for each in container["env"] if each["name"] != "TENFOLD_JOB_FILE"]
    container["volumeMounts"] = [
        each for each in container["volumeMounts"] if each["name"] != "job"
    ]
    container["ports"] = [{"name": "tfjob-port", "containerPort": PORT, "protocol": "TCP"}]
    workers = {
        "replicas": submission.spec.num_workers,
        "restartPolicy": "OnFailure" if submission.max_restarts else "Never",
        "template": _renamed(pod, TFJOB_CONTAINER),
    }
    tfjob = _queued("kubeflow.org/v1", "TFJob", name, shape)
    tfjob["spec"] = {
        "successPolicy": "AllWorkers",
        "runPolicy": {
            "backoffLimit": submission.max_restarts * submission.spec.num_workers,
            "cleanPodPolicy": "Running",
            **_ttl(shape),
        },
        "tfReplicaSpecs": {"Worker": workers},
    }
    return tfjob


def _renamed(pod: dict[str, Any], container: str) -> dict[str, Any]:
    """Return the pod template with the worker's container called `container`."""
    containers = [
        {**each, "name": container} if each["name"] == "worker" else each
        for each in pod["spec"]["containers"]
    ]
    return {**pod, "spec": {**pod["spec"], "containers": containers}}


def _pod(name: str, shape: PodShape, *, restart_label: str = "") -> dict[str, Any]:
    """Return the pod template, with the user's patch."""
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
    if shape.spot:
        key, value, is_tainted = SPOT_NODES[shape.spot]
        spec["nodeSelector"] = {key: value}
        if is_tainted:
            spec["tolerations"] = [
                {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            ]
    template = {"metadata": {"labels": _labels(name)}, "spec": spec}
    merged: dict[str, Any] = merge(template, shape.patch)
    if not any(each.get("name") == "worker" for each in merged["spec"].get("containers", [])):
        raise UserError("pod_patch: it removes the container 'worker', which trains")
    return merged


def _container(shape: PodShape, restart_label: str) -> dict[str, Any]:
    amounts = {"cpu": shape.cpus, "memory": shape.memory}
    resources = {key: value for key, value in amounts.items() if value}
    if shape.gpus:
        resources["nvidia.com/gpu"] = str(shape.gpus)
    return {
        "name": "worker",
        "image": shape.image,
        "command": [
            *remote_module_argv("tenfold.launcher.supervisor.members.pod", python="python")
        ],
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
