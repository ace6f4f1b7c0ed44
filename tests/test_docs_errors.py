"""docs/errors.md: every message that the page explains is one that the code prints."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "errors.md"


@pytest.fixture(scope="module")
def texts_in_code() -> str:
    """Every string constant of the package, the pieces of f-strings included."""
    texts = []
    for folder in ("data", "launcher", "models"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n\n".join(texts)


def test_page_explains_messages() -> None:
    assert len(explained()) >= 10


def explained() -> list[str]:
    """The page's headings that quote a message."""
    return re.findall(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("message", explained())
def test_explained_message_is_in_code(message: str, texts_in_code: str) -> None:
    for part in re.split(r"<\w+>", message):  # <name> stands for a value
        assert part.strip() in texts_in_code
