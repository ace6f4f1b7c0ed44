"""docs/manifest.md: the example is a valid manifest, and the page explains every field of it."""

import json
import re
from pathlib import Path

from tenfold.data.format.manifest import manifest_from_json, manifest_to_json

PAGE = (Path(__file__).parent.parent / "docs" / "manifest.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(text)


def test_example_is_complete_manifest() -> None:
    manifest = manifest_from_json(block("json"))
    assert json.loads(manifest_to_json(manifest)) == json.loads(block("json"))
    document = json.loads(block("json"))
    split = document["splits"][0]
    for field in (*document, *split, *split["shards"][0]):
        assert f"`{field}`" in PAGE, field
