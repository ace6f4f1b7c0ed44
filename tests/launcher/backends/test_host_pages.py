"""The guides to back ends run and print as they say: see scripts/run_docs.

They are also the tests of training over the hosts' networks: the pages show the epochs' receipts.
"""

import os
import shutil

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("page", ["simulated-hosts", "devices"])
def test_page_on_simulated_hosts(run_page, netns_works, page):
    assert run_page(f"docs/{page}.md") == ""


def test_page_on_ssh(run_page, ssh_nodes, tmp_path):
    """The page expects ~/.ssh/config; a wrapper of `ssh` passes the test's configuration."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {ssh_nodes.config} "$@"\n')
    ssh.chmod(0o755)
    path = f"{ssh.parent}:{os.environ['PATH']}"
    assert run_page("docs/ssh.md", prefix=ssh_nodes.prefix, PATH=path) == ""


def test_page_on_slurm(run_page, slurm_conf, end_slurm_jobs):
    differences = run_page("docs/slurm.md", SLURM_CONF=str(slurm_conf))
    end_slurm_jobs(slurm_conf)
    assert differences == ""


def test_page_on_kubernetes(run_page):
    assert run_page("docs/kubernetes.md") == ""


def test_page_on_new_back_ends(run_page):
    assert run_page("docs/new-backend.md") == ""
