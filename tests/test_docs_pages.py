"""README.md and docs/: code blocks run and print what the pages show (see scripts/run_docs)."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "run_docs"

# Pages that run anywhere; tests/launcher/backends and tests/gcs test the other pages.
PAGES = [
    "README.md",
    "docs/README.md",
    "docs/failing.md",
    "docs/inference.md",
    "docs/jobs.md",
    "docs/join.md",
    "docs/lanes.md",
    "docs/manifest.md",
    "docs/migrating.md",
    "docs/planning.md",
    "docs/reading.md",
    "docs/scripts.md",
    "docs/shell.md",
    "docs/training.md",
    "docs/vertex.md",
    "docs/writing.md",
    "docs/your-data.md",
]
ELSEWHERE = [
    "docs/devices.md",
    "docs/gcs.md",
    "docs/kubernetes.md",
    "docs/new-backend.md",
    "docs/simulated-hosts.md",
    "docs/slurm.md",
    "docs/ssh.md",
]
WITHOUT_CODE = ["docs/errors.md", "docs/performance.md"]
# Blocks that no test runs, with the reason that the page gives.
NOT_RUN = {
    "README.md": [
        "it sets up an environment of its own; the tests run in that one",
        "it runs these tests",
        "the tests run elsewhere, with the same images",
    ],
    "docs/inference.md": [
        "it needs a training that runs at the same time; a test runs one",
    ],
    "docs/jobs.md": ["there is no cluster here"],
    "docs/join.md": ["there is no cluster here"],
    "docs/migrating.md": [
        "there is no mpirun here",
        "a test of the join starts such a step on a real Slurm",
    ],
    "docs/reading.md": ["tests/e2e/test_reading_script.py runs it"] * 2,
    "docs/vertex.md": ["there is no project here"],
    "docs/shell.md": ["it changes the firewall"],
    "docs/scripts.md": ["tests/e2e/test_launch_tf_keras.py runs such a program"],
    "docs/writing.md": [
        "starting Beam takes ten seconds; tests/data/writing/test_beam.py runs it"
    ],
    "docs/your-data.md": ["tests/e2e/test_any_features.py runs it on one and on three workers"],
}


@pytest.mark.slow
@pytest.mark.timeout(300)  # run_docs reports unfinished commands after 240 s
@pytest.mark.parametrize("name", PAGES)
def test_page_prints_what_it_shows(name: str, run_page: Callable[..., str]) -> None:
    assert run_page(name) == ""


def test_every_page_has_a_test() -> None:
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")}
    assert pages - {*PAGES, *ELSEWHERE, *WITHOUT_CODE} == set()


def test_index_links_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", index))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_links_have_targets() -> None:
    for page in [ROOT / "README.md", ROOT / "BUILD.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            target, _, anchor = link.partition("#")
            if target.startswith("http"):
                continue
            file = page.parent / target if target else page
            assert file.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors(file), f"{page}: {link}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-") for text in headings}


def test_overview_image_is_up_to_date() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "draw_overview"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PAGES)
def test_blocks_not_run_give_reason(name: str) -> None:
    command = [sys.executable, str(SCRIPT), "--list", str(ROOT / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    reasons = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    assert reasons == NOT_RUN.get(name, [])


def run_docs(page: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *flags, str(page)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


GOOD = """
<!-- setup: here=there -->

```console
$ echo 3 shards in 0.5 s at 12:03:44; \\
  echo $here
3   shards in 7.25 s at 01:02:03
there
$ seq 5
1
…
5
```

```python
# program.py
print("from", "a file")
```

```sh
test "$(python program.py)" = "from a file"
```

<!-- exits 3 -->

```sh
exit_with() { return 3; }; exit_with
```

<!-- not run: there is
no such thing -->

```sh
false
```
"""


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("", "", ""),
        ("3   shards", "4   shards", "+ 3 shards"),  # a whole number counts
        ("there\n$", "elsewhere\n$", "- elsewhere"),
        ("…\n5", "…\n6", "- 6"),
        ('print("from"', 'raise SystemExit("from"', "ended with 1, not 0"),
        ("<!-- exits 3 -->", "", "ended with 3, not 0"),
        ("python program.py", "python other.py", "no command uses program.py"),
        ("```sh\ntest", "```perl\ntest", "a block of 'perl'"),
        ("<!-- not run: there is\nno such thing -->", "", "ended with 1, not 0"),
        ("```console\n$ echo", "    $ false\n\n```console\n$ echo", "is outside of a fence"),
    ],
)  # fmt: skip
def test_difference_in_page_is_reported(tmp_path: Path, old: str, new: str, error: str) -> None:
    assert old in GOOD
    page = tmp_path / "page.md"
    page.write_text(GOOD.replace(old, new) if old else GOOD)
    done = run_docs(page)
    assert (done.returncode, error in done.stderr) == (1 if error else 0, True), done.stderr


def test_update_writes_printed_output(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(GOOD.replace("3   shards", "4 shards").replace("there\n$", "$"))
    run_docs(page, "--update")
    assert "3 shards in 0.5 s at 12:03:44\nthere\n$ seq 5\n1\n…\n5\n" in page.read_text()
    assert run_docs(page).returncode == 0
