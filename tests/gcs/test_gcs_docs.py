"""The page on gs:// does what it says."""

import json
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_page(bucket: Any, run_page: Callable[..., None]) -> None:
    bucket.server.request("/storage/v1/b?project=test", json.dumps({"name": "my-bucket"}).encode())
    run_page("docs/gcs.md")
