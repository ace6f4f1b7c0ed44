"""The commands on the page about gs:// run as printed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_gcs_page_runs_as_printed(bucket: Any, digits: Path, run_page: Callable[..., str]) -> None:
    bucket.server.request("/storage/v1/b?project=test", json.dumps({"name": "my-bucket"}).encode())
    mine = replace(bucket, name="my-bucket")
    for path in digits.glob("*/*.png"):
        mine.write(f"digits/{path.parent.name}/{path.name}", path.read_bytes())
    assert run_page("docs/gcs.md") == ""
