"""job.json, and the environment of workers."""

import json
from dataclasses import replace

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.job.job_spec import (
    ClusterSpec,
    JobSpec,
    job_from_json,
    job_to_json,
    worker_env,
)
from tenfold.models.train_config import TrainConfig

TRAIN = TrainConfig("/shards", "/runs/a", epochs=2, image_size=(32, 48), callbacks=("a:b",))
SPEC = JobSpec(("python", "x.py"), 2, "/runs/a", cwd="/home", env={"A": "1"}, train=TRAIN)
JOB = (
    '{"argv": ["a"], "num_workers": 2, "run_dir": "r", "env": {}, "train": null, '
    '"workers": ["a:1", "b:1"]}'
)
CLUSTER = ClusterSpec(("10.0.0.1:4000", "10.0.0.2:4000"))


def test_job_json_survives_encoding():
    for spec in (SPEC, replace(SPEC, train=None)):
        assert job_from_json(job_to_json(spec, CLUSTER), where="job.json") == (spec, CLUSTER)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", r"\[\] is not a JSON object"),
        ("{}", "argv is missing"),
        ('{"workers": ["a:1"], "argv": [], "what": 1}', "unknown what; there are argv, "),
        (JOB.replace("2", '"two"'), "num_workers is 'two', not a whole number"),
        (JOB.replace('["a"]', "[7]"), r"argv\[0\] is 7, not a text"),
        (JOB.replace('"env": {}', '"env": {"A": 1}'), "env.A is 1, not a text"),
        (JOB.replace("null", '{"shards": "s"}'), "training configuration: run_dir is missing"),
        (JOB.replace("null", '{"epoch": 1}'), "unknown epoch; there are shards, "),
        (
            JOB.replace("null", '{"shards": "s", "run_dir": "r", "epochs": 0}'),
            "epochs is 0: it must be at least 1",
        ),
    ],
)
def test_damaged_job_json_names_the_field(text, reason):
    with pytest.raises(UserError, match=f"^x/job.json is not a job file .*{reason}"):
        job_from_json(text, where="x/job.json")


def test_empty_training_configuration_is_none():
    spec, _ = job_from_json(JOB.replace("null", "{}"), where="job.json")
    assert spec.train is None


def test_worker_env_has_the_documented_names():
    env = worker_env(SPEC, CLUSTER, 1, restart=3)
    assert json.loads(env["TF_CONFIG"]) == {
        "cluster": {"worker": ["10.0.0.1:4000", "10.0.0.2:4000"]},
        "task": {"type": "worker", "index": 1},
    }
    assert {name: env[name] for name in env if name != "TF_CONFIG"} == {
        "A": "1",
        "TENFOLD_WORKER_INDEX": "1",
        "TENFOLD_NUM_WORKERS": "2",
        "TENFOLD_RUN_DIR": "/runs/a",
        "TENFOLD_RESTART": "3",
    }
    with pytest.raises(UserError, match="one address"):
        ClusterSpec(("a:1", "a:1"))
