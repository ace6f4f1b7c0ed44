"""docs/manifest.md: its example is a manifest, and its program reads real shards."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tenfold.data.manifest import manifest_from_json, manifest_to_json

PAGE = (Path(__file__).parent.parent / "docs" / "manifest.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(text)


def test_the_example_is_a_whole_manifest() -> None:
    manifest = manifest_from_json(block("json"))
    assert json.loads(manifest_to_json(manifest)) == json.loads(block("json"))
    document = json.loads(block("json"))
    split = document["splits"][0]
    for field in (*document, *split, *split["shards"][0]):
        assert f"`{field}`" in PAGE, field


@pytest.mark.timeout(120)
def test_the_program_reads_every_record(digit_shards: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("python")],
        cwd=digit_shards.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "1617 of 1617\n", done.stderr
