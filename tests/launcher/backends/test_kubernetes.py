"""Manifests checked against the schemas of Kubernetes, and the entry of a pod as a process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

from tenfold.data.errors import UserError
from tenfold.launcher.backends.backend_registry import load_submitter
from tenfold.launcher.backends.base import Submission
from tenfold.launcher.backends.platforms.kubernetes_manifests import job_name, pod_addresses
from tenfold.launcher.backends.platforms.yaml_text import to_yaml
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec, job_from_json, job_to_json
from tenfold.launcher.worker.python_argv import remote_module_argv

pytestmark = pytest.mark.timeout(120)

FLAGS = (
    "--backend=kubernetes", "--image=registry/me/train:1", "--num_workers=3", "--max_restarts=2",
    "--namespace=ml", "--service_account=trainer", "--volumes=data:/mnt/data",
    "--secrets=gcs-key:/var/gcs", "--google_credentials=/var/gcs/key.json",
    "--pod_cpus=4", "--pod_memory=16Gi", "--pod_gpus=1", "--run_dir=/mnt/data/Run_1",
)  # fmt: skip


def rendered(tenfold, *flags):
    done = tenfold("launch", *FLAGS, "--shards=gs://bucket/shards", "--dry_run", *flags)
    assert done.status == 0, done.err
    return list(yaml.safe_load_all(done.out))


def by_kind(documents):
    return {document["kind"]: document for document in documents}


def check(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_indexed_job_fits_schemas(tenfold):
    documents = rendered(tenfold)
    assert [document["kind"] for document in documents] == [
        "ConfigMap", "NetworkPolicy", "Service", "Job",
    ]  # fmt: skip
    for document in documents:
        check(document)
        assert document["metadata"]["name"] == "run-1"
        assert document["metadata"]["namespace"] == "ml"
    job = by_kind(documents)["Job"]["spec"]
    assert (job["completions"], job["parallelism"], job["backoffLimit"]) == (3, 3, 2)
    pod = job["template"]["spec"]
    assert (pod["subdomain"], pod["restartPolicy"]) == ("run-1", "Never")
    assert pod["serviceAccountName"] == "trainer"
    wanted = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    (container,) = pod["containers"]
    assert container["resources"] == {"requests": wanted, "limits": wanted}
    # The image's Python may be 3.10, which has no -P.
    assert container["command"][:2] == ["python", "-c"]
    assert "'tenfold.launcher.supervisor.members.pod'" in container["command"][2]


def test_failure_policy_excludes_preemptions(tenfold):
    rules = by_kind(rendered(tenfold))["Job"]["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "Ignore", "FailJob"]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert rules[1]["onExitCodes"]["values"] == [75, 76]
    assert rules[2]["onExitCodes"]["values"] == [77], "values that are not finite come again"


def test_network_policy_admits_only_peers(tenfold):
    documents = by_kind(rendered(tenfold))
    policy = documents["NetworkPolicy"]["spec"]
    labels = documents["Job"]["spec"]["template"]["metadata"]["labels"]
    (rule,) = policy["ingress"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert rule["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert rule["ports"] == [{"protocol": "TCP", "port": 2222}]
    assert documents["Service"]["spec"]["selector"] == labels


def test_job_file_uses_names_of_the_service(tenfold):
    documents = by_kind(rendered(tenfold))
    spec, cluster = job_from_json(documents["ConfigMap"]["data"]["job.json"], where="job.json")
    assert cluster.workers == tuple(f"run-1-{i}.run-1:2222" for i in range(3))
    assert spec.train is not None
    assert spec.train.shards == "gs://bucket/shards"
    assert documents["Service"]["metadata"]["name"] == "run-1"
    assert documents["Service"]["spec"]["publishNotReadyAddresses"] is True
    assert str(Path.cwd()) not in json.dumps(documents)


def test_secret_variables_hold_names_only(tenfold):
    job = by_kind(rendered(tenfold, "--secret_env=HF_TOKEN=hf:token,WANDB_API_KEY=wandb"))["Job"]
    check(job)
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    found = {entry["name"]: entry["valueFrom"] for entry in env if "valueFrom" in entry}
    assert found == {
        "HF_TOKEN": {"secretKeyRef": {"name": "hf", "key": "token"}},
        "WANDB_API_KEY": {"secretKeyRef": {"name": "wandb", "key": "WANDB_API_KEY"}},
    }


def test_jobset_fits_its_types(tenfold):
    documents = by_kind(rendered(tenfold, "--kubernetes_kind=jobset"))
    assert set(documents) == {"ConfigMap", "NetworkPolicy", "JobSet"}
    jobset = documents["JobSet"]
    # Unknown fields would be lost in the conversion to the types and back.
    assert JobsetV1alpha2JobSet.from_dict(jobset).to_dict() == jobset
    (replicated,) = jobset["spec"]["replicatedJobs"]
    check({"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, **replicated["template"]})
    _, cluster = job_from_json(documents["ConfigMap"]["data"]["job.json"], where="job.json")
    assert cluster.workers == tuple(f"run-1-workers-0-{i}.run-1:2222" for i in range(3))
    assert jobset["spec"]["network"] == {"enableDNSHostnames": True, "subdomain": "run-1"}
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 2


def test_schemas_refuse_unknown_field(tenfold):
    job = by_kind(rendered(tenfold))["Job"]
    job["spec"]["template"]["spec"]["restartpolicy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        check(job)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--image="], "needs --image"),
        (
            ["--kubernetes_kind=pod"],
            "'pod' is none of job, jobset, trainjob, tfjob",
        ),
        (["--volumes=data"], "write NAME:/PATH"),
        (["--volumes=other:/elsewhere"], "is on none of --volumes"),
        (["--secrets=A_B:/x"], "write NAME:/PATH"),
        (["--pod_memory=lots"], "no quantity"),
        (["--secret_env=HF_TOKEN=hf_Abc"], "secret_env 'HF_TOKEN=…': write VARIABLE=SECRET:KEY"),
        (["--pass_env=HOME"], "as --secret_env does on Kubernetes"),
        (["--pod_gpus=-1"], "not a whole number"),
        (["--namespace=Mine"], "no name in Kubernetes"),
        (["--run_dir=here"], "needs --run_dir: gs://… or an absolute path"),
        (["--shards=here"], "an absolute path on the workers"),
        (["--hosts=a"], "--hosts is for --backend=ssh, not for kubernetes"),
    ],
)
def test_wrong_options_are_refused_in_one_line(tenfold, flags, words):
    done = tenfold("launch", *FLAGS, "--shards=gs://b/s", "--dry_run", *flags)
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert done.err.count("\n") == 1


def submission(run_dir="/r/x", num_workers=2):
    return Submission(JobSpec(("true",), num_workers, run_dir), (), 0)


@given(st.text(min_size=1, max_size=80).filter(lambda name: "/" not in name and name != ".."))
def test_any_run_dir_gives_a_valid_job_name(name):
    found = job_name(submission(f"/runs/{name}"))
    assert found[0].isalpha()
    assert found[-1].isalnum()
    assert len(f"{found}-workers-0-9999") <= 63
    assert all(c.isascii() and (c.isalnum() or c == "-") for c in found)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), VALUES, min_size=1))
def test_yaml_parses_to_equal_documents(document):
    assert list(yaml.safe_load_all(to_yaml([document, document]))) == [document, document]


def test_multi_line_text_is_a_literal_block():
    assert to_yaml([{"at": "{\n x\n}\n"}]) == "at: |\n  {\n   x\n  }\n"
    for text in (
        "\n\n",
        " a\nb\n",
        "a\nb",
        "a \nb\n",
        "a\n\nb\n",
        "a\tb\nc\n",
        "\n\x85",
        "a\r\nb\n",
    ):
        assert yaml.safe_load(to_yaml([{"a": text}])) == {"a": text}


@pytest.mark.parametrize("text", ["1e3", "0o17", "y", "NO", "1_0", "4", "0x1F", ".inf", "~", ""])
def test_text_like_a_number_is_quoted(text):
    """PyYAML follows YAML 1.1; Kubernetes' parser reads some of 1.2 as well."""
    assert to_yaml([{"name": text}]).removeprefix("name: ")[0] in "'\""


def test_shared_values_get_no_yaml_anchor():
    shared = ["a value"]
    assert to_yaml([{"one": shared, "two": shared}]).count("a value") == 2


# --- kubectl ---


def test_kubectl_gets_the_rendered_manifests(tenfold, tmp_path):
    """kubectl is a stand-in: there is no API server here."""
    stand_in = tmp_path / "kubectl"
    stand_in.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\nexec cat > {tmp_path}/text\n')
    stand_in.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = tenfold("launch", *FLAGS, "--", "python", "train.py", PATH=path)
    assert done.status == 0, done.err
    assert (tmp_path / "words").read_text() == "apply -f -\n"
    job = by_kind(yaml.safe_load_all((tmp_path / "text").read_text()))["Job"]
    check(job)
    assert job["spec"]["backoffLimit"] == 2
    assert "kubectl logs --follow --prefix --namespace ml" in done.out


def test_error_of_kubectl_is_reported(tenfold, tmp_path):
    stand_in = tmp_path / "kubectl"
    stand_in.write_text('#!/bin/sh\ncat > /dev/null\necho "quota exceeded" >&2\nexit 1\n')
    stand_in.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = tenfold("launch", *FLAGS, "--", "python", "train.py", PATH=path)
    assert done.status == 1
    assert done.err == "tenfold: kubectl apply failed: quota exceeded\n"


def test_missing_kubectl_is_refused(tenfold, tmp_path):
    done = tenfold("launch", *FLAGS, "--", "python", "train.py", PATH=str(tmp_path))
    assert done.status == 2
    assert "there is no kubectl here" in done.err


# --- the pod ---

PROGRAM = """
import json, os, signal, sys, time
print("hello", os.environ["TF_CONFIG"], os.environ["TENFOLD_WORKER_INDEX"], flush=True)
data = {"loss": 0.5, "epoch": 0}
event = {"kind": "epoch", "worker": 0, "phase": "", "time": 1.0, "data": data}
print("\\x1e" + json.dumps(event), flush=True)
if sys.argv[1:] == ["wait"]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(76))
    print("waiting", flush=True)
    time.sleep(60)
if sys.argv[1:] == ["blame"]:
    raise RuntimeError("UnavailableError: Collective ops is aborted: Connection reset by peer")
if sys.argv[1:] == ["fail"]:
    raise ValueError("its own fault")
if sys.argv[1:] == ["leave"]:
    import subprocess
    subprocess.Popen(["sleep", "100"])
    sys.exit(3)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def start_pod(tmp_path):
    def start(*words: str, index: str) -> "subprocess.Popen[str]":
        (tmp_path / "program.py").write_text(PROGRAM)
        argv = (sys.executable, str(tmp_path / "program.py"), *words)
        spec = JobSpec(argv, 2, str(tmp_path / "run"))
        cluster = ClusterSpec(pod_addresses("x", 2, "job"))
        (tmp_path / "job.json").write_text(job_to_json(spec, cluster))
        return subprocess.Popen(
            remote_module_argv("tenfold.launcher.supervisor.members.pod", python=sys.executable),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "TENFOLD_JOB_FILE": str(tmp_path / "job.json"),
                "JOB_COMPLETION_INDEX": index,
            },
        )

    return start


def test_pod_runs_the_worker_of_its_index(start_pod, tmp_path):
    pod = start_pod(index="1")
    out, err = pod.communicate(timeout=60)
    assert pod.returncode == 128 + signal.SIGKILL
    said = "[worker 1] hello "
    hello = next(line for line in err.splitlines() if line.startswith(said))
    place, index = json.loads(hello[len(said) : -2]), hello[-1]
    assert index == "1"
    assert place == {
        "cluster": {"worker": ["x-0.x:2222", "x-1.x:2222"]},
        "task": {"type": "worker", "index": 1},
    }
    assert "\x1e" not in out + err
    result = json.loads((tmp_path / "run" / "members" / "result-1.json").read_text())
    assert (result["exit_code"], result["status"]) == (-9, 137)
    assert "killed by SIGKILL" in result["failure"]["error"]


def test_pod_forwards_sigterm_and_exit_code(start_pod, tmp_path):
    pod = start_pod("wait", index="0")
    assert pod.stderr is not None
    end = time.monotonic() + 60
    shown = ""
    while "] waiting\n" not in shown:
        assert time.monotonic() < end
        shown += pod.stderr.readline()
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(timeout=60) == 76
    pod.communicate()
    assert "epoch 1: loss 0.5" in shown
    assert json.loads((tmp_path / "run" / "result.json").read_text())["state"] == "cancelled"


# The chief, pod 0, waits for the ends of the others.
@pytest.mark.parametrize(
    ("how", "index", "status"), [("blame", "1", 75), ("fail", "1", 1), ("leave", "0", 3)]
)
def test_pod_exit_code_separates_cause_and_consequence(start_pod, how, index, status):
    """A process that the program leaves running does not keep the pod alive."""
    pod = start_pod(how, index=index)
    _, err = pod.communicate(timeout=80)
    assert pod.returncode == status
    assert ("Traceback" in err) == (how != "leave")


@pytest.mark.parametrize("index", ["", "2", "x"])
def test_pod_without_index_is_refused(start_pod, index):
    pod = start_pod(index=index)
    _, err = pod.communicate(timeout=60)
    assert pod.returncode == 2
    assert err.startswith("tenfold: JOB_COMPLETION_INDEX is")
    assert err.count("\n") == 1


@pytest.mark.parametrize("path", ["", "no/job.json"])
def test_pod_without_job_file_is_refused(path):
    done = subprocess.run(
        remote_module_argv("tenfold.launcher.supervisor.members.pod", python=sys.executable),
        capture_output=True, text=True, timeout=60, env={**os.environ, "TENFOLD_JOB_FILE": path},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"tenfold: TENFOLD_JOB_FILE is '{path}', which cannot be read (")
    assert done.stderr.count("\n") == 1


def test_doctor_cannot_check_pods(tenfold):
    done = tenfold("doctor", *FLAGS, "--", "true")
    assert done.status == 2
    assert "cannot be looked at from here" in done.err


def test_missing_image_is_refused():
    with pytest.raises(UserError, match="--image"):
        load_submitter("kubernetes", {})
