"""Every published name can be imported, and publishing them loads no heavy package."""

import importlib
import json
import subprocess
import sys

import pytest

PACKAGES = ("tenfold", "tenfold.data", "tenfold.models")
HEAVY = ("tensorflow", "numpy", "keras")

PROGRAM = f"""
import json, sys
{"; ".join(f"import {package}" for package in PACKAGES)}
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_published_names_are_importable(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_importing_packages_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
