"""Environment variables and argv of workers."""

import subprocess

import pytest

from tenfold.launcher.worker.environment import no_proxy_for, worker_defaults
from tenfold.launcher.worker.python_argv import module_argv

ADDRESSES = ("10.0.0.1:4000", "10.0.0.2:4000")


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(8, 2, "4"), (8, 3, "2"), (2, 4, "1"), (1, 1, "1")]
)
def test_workers_share_the_cores(cores, workers, threads):
    env = worker_defaults({}, num_workers=workers, cores=cores)
    assert env["TF_NUM_INTRAOP_THREADS"] == threads
    assert env["TF_NUM_INTEROP_THREADS"] == str(max(2, int(threads)))


def test_variables_of_the_user_are_kept():
    mine = {"TF_NUM_INTRAOP_THREADS": "7", "TF_CPP_MIN_LOG_LEVEL": "0"}
    assert not set(worker_defaults(mine, num_workers=2, cores=2)) & set(mine)


def test_proxy_is_kept_out_of_worker_traffic():
    assert no_proxy_for({}, ADDRESSES) == {}
    behind = {"HTTPS_PROXY": "http://proxy:8080", "no_proxy": "example.org"}
    assert no_proxy_for(behind, ADDRESSES) == {"no_grpc_proxy": "example.org,10.0.0.1,10.0.0.2"}


def test_modules_run_without_current_folder_on_path(tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    argv = module_argv("tenfold", ["--version"])
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
