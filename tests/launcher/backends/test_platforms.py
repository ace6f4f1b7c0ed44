"""What is rendered for Kubeflow and Vertex AI: golden texts, schemas, containers' commands.

`UPDATE_GOLDEN=1 pytest …` writes the texts in golden/, to be read before they are committed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime, TrainerV1alpha1TrainJob

from tenfold.data.errors import UserError
from tenfold.launcher.backends.platforms.strategic_merge import merge
from tenfold.launcher.backends.ports import pick_ports
from tenfold.launcher.cli.main import main
from tenfold.launcher.job.job_spec import job_from_json

pytestmark = pytest.mark.timeout(120)

GOLDEN = Path(__file__).parent / "golden"
COMMON = ("--image=registry/me/train:1", "--num_workers=3", "--max_restarts=2", "--dry_run")
TRAINS = ("--shards=gs://bucket/shards", "--epochs=3", "--run_dir=gs://bucket/Run_1")
KUBERNETES = ("--backend=kubernetes", "--namespace=ml", "--pod_gpus=1")
FLAGS = {
    "trainjob": (*KUBERNETES, "--kubernetes_kind=trainjob", "--queue=team", "--ttl=12h"),
    "tfjob": (*KUBERNETES, "--kubernetes_kind=tfjob", "--spot=gke", "--ttl=90m"),
    "vertex": (
        "--backend=vertex", "--region=europe-west4", "--machine_type=g2-standard-24",
        "--accelerator=NVIDIA_L4:2", "--spot=yes", "--service_account=me@example.com",
    ),
}  # fmt: skip


def rendered(capsys, *flags):
    status = main(["launch", *map(str, flags)])
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


def documents(capsys, *flags):
    found = yaml.safe_load_all(rendered(capsys, *COMMON, *flags))
    return {document["kind"]: document for document in found}


def check(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", FLAGS)
def test_rendered_text_is_the_golden_one(name, capsys):
    text = rendered(capsys, *COMMON, *FLAGS[name], *TRAINS)
    file = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_trainjob_fits_its_types_and_addresses(capsys):
    found = documents(capsys, *FLAGS["trainjob"], *TRAINS)
    # Unknown fields would be lost in the conversion to the types and back.
    for kind, type_ in (
        ("TrainingRuntime", TrainerV1alpha1TrainingRuntime),
        ("TrainJob", TrainerV1alpha1TrainJob),
    ):
        assert type_.from_dict(found[kind]).to_dict() == found[kind]
    (replicated,) = found["TrainingRuntime"]["spec"]["template"]["spec"]["replicatedJobs"]
    template = replicated["template"]
    check({"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, "spec": template["spec"]})
    _, cluster = job_from_json(found["ConfigMap"]["data"]["job.json"], where="job.json")
    assert cluster.workers == tuple(f"run-1-node-0-{i}.run-1:2222" for i in range(3))
    assert found["TrainJob"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"


def test_pods_of_tfjob_fit_the_schema(capsys):
    workers = documents(capsys, *FLAGS["tfjob"], *TRAINS)["TFJob"]["spec"]["tfReplicaSpecs"]
    check({"apiVersion": "v1", "kind": "PodTemplate", "template": workers["Worker"]["template"]})


@pytest.mark.parametrize("kind", ["job", "jobset", "trainjob", "tfjob"])
def test_queue_ttl_spot_and_patch_reach_every_kind(kind, capsys, tmp_path):
    patch = tmp_path / "patch.yaml"
    patch.write_text(
        "metadata: {annotations: {sidecar.istio.io/inject: 'false'}}\n"
        "spec:\n"
        "  hostNetwork: true\n"
        "  nodeSelector: {pool: a100}\n"
        "  containers:\n"
        "  - {name: worker, resources: {limits: {rdma/ib: '1'}}}\n"
        "  - {name: sync, image: sidecar}\n"
    )
    flags = ("--backend=kubernetes", f"--kubernetes_kind={kind}", f"--pod_patch={patch}")
    more = ("--queue=team", "--ttl=7d", "--spot=eks", "--pod_cpus=4")
    found = documents(capsys, *flags, *more, *TRAINS)
    text = json.dumps(found)
    assert text.count('"kueue.x-k8s.io/queue-name": "team"') == 1
    assert text.count('"ttlSecondsAfterFinished": 604800') == 1
    (pod,) = find_pods(found)
    check({"apiVersion": "v1", "kind": "PodTemplate", "template": pod})
    assert pod["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert pod["spec"]["nodeSelector"] == {
        "eks.amazonaws.com/capacityType": "SPOT",
        "pool": "a100",
    }
    worker, sidecar = pod["spec"]["containers"]
    assert worker["resources"]["limits"] == {"cpu": "4", "rdma/ib": "1"}
    assert worker["image"] == "registry/me/train:1"
    assert sidecar == {"name": "sync", "image": "sidecar"}
    assert worker["name"] == {"trainjob": "node", "tfjob": "tensorflow"}.get(kind, "worker")


def find_pods(value):
    """Return all pod templates in parsed manifests."""
    if isinstance(value, list):
        return [pod for each in value for pod in find_pods(each)]
    if not isinstance(value, dict):
        return []
    if "containers" in value.get("spec", {}):
        return [value]
    return find_pods(list(value.values()))


PROGRAM = "import os; print('place', os.environ['TENFOLD_WORKER_INDEX'], os.environ['TF_CONFIG'])"


def commands_of(name, capsys, tmp_path):
    """Return the argv of each container of two workers that run a program."""
    # /gcs is where Vertex AI mounts buckets; here the run directory is replaced afterwards.
    flags = [flag for flag in FLAGS[name] if not flag.startswith("--region")]
    flags += ["--image=x", "--num_workers=2", "--dry_run", "--run_dir=gs://bucket/run"]
    text = rendered(capsys, *flags, "--", sys.executable, "-c", PROGRAM)
    (job,) = [each for each in yaml.safe_load_all(text) if each.get("kind") != "NetworkPolicy"]
    if name == "vertex":
        pools = job["workerPoolSpecs"]
        assert [pool["replicaCount"] for pool in pools] == [1, 1]
        commands = [pool["containerSpec"]["command"] for pool in pools]
    else:
        workers = job["spec"]["tfReplicaSpecs"]["Worker"]
        (container,) = workers["template"]["spec"]["containers"]
        commands = [container["command"]] * workers["replicas"]
    assert all(command[0] == "python" for command in commands)
    own = [word.replace("gs://bucket", str(tmp_path)) for word in commands[0][1:]]
    assert commands[0] == commands[1]
    return [[sys.executable, *own]] * 2


@pytest.mark.parametrize("name", ["tfjob", "vertex"])
def test_containers_join_by_what_the_platform_sets(name, capsys, tmp_path):
    addresses = [f"localhost:{port}" for port in pick_ports("127.0.0.1", 2)]
    pools = {"workerpool0": addresses[:1], "workerpool1": addresses[1:]}
    tasks = {
        "tfjob": ("TF_CONFIG", {"worker": addresses}, [("worker", 0), ("worker", 1)]),
        "vertex": ("CLUSTER_SPEC", pools, [("workerpool0", 0), ("workerpool1", 0)]),
    }
    variable, cluster, places = tasks[name]
    started = []
    commands = commands_of(name, capsys, tmp_path)
    for command, (kind, index) in zip(commands, places, strict=True):
        task = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
        environ = {**os.environ, variable: task}
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ))
    for index, process in enumerate(started):
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        line = next(line for line in err.splitlines() if "place" in line)
        assert line.startswith(f"[worker {index}] place {index} ")
        config = json.loads(line.split(" ", 4)[-1])
        assert config["cluster"]["worker"] == addresses
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["state"], result["exit_codes"]) == ("succeeded", [0, 0])


GCLOUD = """#!/bin/sh
echo "$@" >> {folder}/called
for word in "$@"; do
  case "$word" in --config=*) cp "${{word#--config=}}" {folder}/config ;; esac
done
case "$3" in
create) echo projects/1/locations/europe-west4/customJobs/2 ;;
describe) echo JOB_STATE_PENDING ;;
esac
"""


def test_gcloud_gets_the_job_and_tells_its_state(capsys, tmp_path, add_command):
    add_command("gcloud", GCLOUD.format(folder=tmp_path))
    flags = ("--backend=vertex", "--image=x", "--run_dir=/gcs/bucket/run", "--", "true")
    out = rendered(capsys, *flags)
    name = "projects/1/locations/europe-west4/customJobs/2"
    assert f"created {name}" in out
    assert yaml.safe_load((tmp_path / "config").read_text())["workerPoolSpecs"]
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    job = {"backend": "vertex", "job": name}
    (run_dir / "submission.json").write_text(json.dumps(job))
    assert main(["status", str(run_dir)]) == 0
    assert f"vertex job {name}: pending" in capsys.readouterr().out
    assert main(["cancel", str(run_dir)]) == 0
    assert (tmp_path / "called").read_text().splitlines()[-1] == f"ai custom-jobs cancel {name}"


@pytest.mark.parametrize(
    ("backend", "flags", "message"),
    [
        ("vertex", ["--image="], "--backend=vertex needs --image"),
        ("vertex", ["--run_dir=/tmp/r"], "lost with the containers"),
        ("vertex", ["--spot=gke"], "write --spot=yes"),
        ("vertex", ["--accelerator=t4"], "TYPE:COUNT"),
        ("vertex", ["--region=europe"], "write, for example, europe-west4"),
        ("vertex", ["--queue=q"], "--queue is for --backend=kubernetes, not for vertex"),
        ("vertex", ["--gpus_per_worker=1"], "--gpus_per_worker is not for --backend=vertex"),
        ("kubernetes", ["--gpus_per_worker=all"], "gives containers their GPUs: --pod_gpus"),
        ("kubernetes", ["--network_interface=eth1"], "have one address each"),
        ("kubernetes", ["--spot=yes"], "is none of gke, eks, aks, karpenter"),
        ("kubernetes", ["--ttl=1y"], "90m, 12h or 7d"),
        ("kubernetes", ["--pod_patch=no"], "pod_patch 'no' cannot be read: "),
        ("kubernetes", ["--pod_patch=list.yaml"], "has to be an object with 'spec'"),
        ("kubernetes", ["--pod_patch=gone.yaml"], "removes the container 'worker'"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    backend, flags, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("- 1\n")
    Path("gone.yaml").write_text("spec: {containers: [{name: worker, $patch: delete}]}\n")
    usable = [f"--backend={backend}", "--image=x", "--run_dir=gs://b/r", "--dry_run"]
    assert main(["launch", *usable, *flags, "--", "true"]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


# original, patch, merged
MERGES = [
    ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
    ({"a": {"x": 1, "y": 2}}, {"a": {"x": None}}, {"a": {"y": 2}}),
    ({"args": [1, 2]}, {"args": [3]}, {"args": [3]}),
    ({}, {"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "1"}]}),
    (
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]},
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"},
                 {"name": "C", "value": "4"}]},
    ),
    ({"env": [{"name": "A"}, {"name": "B"}]}, {"env": [{"name": "A", "$patch": "delete"}]},
     {"env": [{"name": "B"}]}),
    ({"a": {"x": 1}}, {"a": {"y": 2, "$patch": "replace"}}, {"a": {"y": 2}}),
    ({"a": {"x": 1}, "b": 1}, {"a": {"$patch": "delete"}}, {"b": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("original", "patch", "merged"), MERGES)
def test_patch_merges_as_kubectl_does(original, patch, merged):
    before = json.dumps(original)
    assert merge(original, patch) == merged
    assert json.dumps(original) == before


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"env": [{"value": "1"}]}, "env: an entry has no 'name'"),
        ({"a": {"$patch": "remove"}}, "'remove' is none of merge, replace, delete"),
    ],
)
def test_impossible_patch_is_refused(patch, message):
    with pytest.raises(UserError, match=r"\$patch|env") as refused:
        merge({"env": [{"name": "A"}]}, patch)
    assert message in str(refused.value)
