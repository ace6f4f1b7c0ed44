"""docs/errors.md and docs/api.md are those of the code; what is explained is what we print."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "errors.md"


def test_the_lists_are_those_of_the_code() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "error_index"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def said() -> str:
    """Every text in the code, one after the other."""
    texts = []
    for folder in ("data", "launcher", "models"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n\n".join(texts)


@pytest.mark.parametrize("heading", re.findall(r"^### `(.+)`$", PAGE.read_text(), re.M))
def test_what_is_explained_is_what_we_print(heading: str, said: str) -> None:
    for part in re.split(r"<\w+>", heading):
        assert part.strip() in said


def test_a_message_without_a_place_is_found(tmp_path: Path) -> None:
    """The check can fail: a copy of the tree with one more message is out of date."""
    for name in ("data", "launcher", "models", "scripts", "docs"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "new.py").write_text('raise UserError(f"{a} is a new message")\n')
    (tmp_path / "docs" / "errors.md").write_text("<!-- messages: data -->\n<!-- end -->\n")
    script = tmp_path / "scripts" / "error_index"
    script.write_bytes((ROOT / "scripts" / "error_index").read_bytes())
    check = [sys.executable, str(script), "--check"]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1
    subprocess.run(check[:2], check=True)
    assert "- `<a> is a new message`\n" in (tmp_path / "docs" / "errors.md").read_text()
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0


def test_the_reference_is_that_of_the_docstrings() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "api_index"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
