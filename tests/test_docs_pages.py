"""The code in README.md and docs/ runs and prints what the pages say: see scripts/run_docs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "run_docs"

# The pages that run anywhere; those of the back ends and of gs:// have tests beside the back ends.
PAGES: list[str] = []
ELSEWHERE = ["gcs.md", "kubernetes.md", "simulated-hosts.md", "slurm.md", "ssh.md"]
GENERATED = ["api.md", "errors.md"]
# What these pages show and no test runs, with the page's own reason.
NOT_RUN: dict[str, list[str]] = {}


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_says(name: str, run_page: Callable[..., None]) -> None:
    run_page(name)


@pytest.mark.parametrize("name", PAGES)
def test_what_is_not_run_says_why(name: str) -> None:
    page = ROOT / name if name == "README.md" else ROOT / "docs" / name
    done = subprocess.run(
        [sys.executable, SCRIPT, "--list", page], capture_output=True, text=True, check=True
    )
    reasons = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    assert reasons == NOT_RUN.get(name, [])


def run_docs(page: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, SCRIPT, *flags, page]
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
    ("old", "new", "said"),
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
        ("```console\n$ echo", "    $ false\n\n```console\n$ echo", "is in no fence"),
    ],
)  # fmt: skip
def test_a_page_that_does_otherwise_is_found(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in GOOD
    page = tmp_path / "page.md"
    page.write_text(GOOD.replace(old, new) if old else GOOD)
    done = run_docs(page)
    assert (done.returncode, said in done.stderr) == (1 if said else 0, True), done.stderr


def test_update_writes_what_was_printed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(GOOD.replace("3   shards", "4 shards").replace("there\n$", "$"))
    run_docs(page, "--update")
    assert "3 shards in 0.5 s at 12:03:44\nthere\n$ seq 5\n1\n…\n5\n" in page.read_text()
    assert run_docs(page).returncode == 0
