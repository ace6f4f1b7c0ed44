"""The source tree: small folders, unique names, an import contract for every folder."""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest depends on it

ROOT = Path(__file__).parent.parent
FOLDERS = ("data", "launcher", "models")
MAX_ENTRIES = 13
# Basenames that several folders may have.
SHARED_NAMES = {"__init__", "__main__", "base"}


def modules() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def packages() -> list[Path]:
    return [path.parent for path in modules() if path.name == "__init__.py"]


def definitions(module: Path) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef]:
    """The module itself, and every class and function in it."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield node


def used_twice(names: Iterable[tuple[str, Path]]) -> dict[str, list[str]]:
    """Return the names that several places have, with the places."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, path in names:
        places[name].append(str(path.relative_to(ROOT)))
    return {name: found for name, found in places.items() if len(found) > 1}


def test_folders_have_few_entries() -> None:
    for folder in packages():
        entries = [path for path in folder.iterdir() if path.name != "__pycache__"]
        assert len(entries) <= MAX_ENTRIES, folder


def test_module_names_are_unique() -> None:
    found = used_twice((path.stem, path) for path in modules() if path.stem not in SHARED_NAMES)
    assert found == {}


def test_class_names_are_unique() -> None:
    """Private classes are names of their module only, and may share one."""
    classes = (
        (node.name, path)
        for path in modules()
        for node in definitions(path)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert used_twice(classes) == {}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The tables of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_packages_are_complete_in_pyproject(project: dict[str, Any]) -> None:
    expected = {
        ".".join(("tenfold", *folder.relative_to(ROOT).parts)) for folder in packages()
    } - {"tenfold.launcher.tenfold"}
    assert set(project["tool"]["setuptools"]["packages"]) == expected | {"tenfold"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_import_contract_lists_all_modules(folder: str, project: dict[str, Any]) -> None:
    """Nested folders are under the contract of the folder that holds them."""
    container = f"tenfold.{folder}"
    (contract,) = (
        contract
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == [container]
    )
    listed = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    children = {
        path.stem
        for path in (ROOT / folder).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert contract["exhaustive"]
    assert listed == children - {"__init__", *contract.get("exhaustive_ignores", ())}


def test_build_page_explains_every_dependency(project: dict[str, Any]) -> None:
    page = (ROOT / "BUILD.md").read_text(encoding="utf-8")
    table = page.partition("## Dependencies")[2].partition("\n## ")[0]
    extras = project["project"]["optional-dependencies"]
    needed = [
        *project["project"]["dependencies"],
        *(name for extra in extras.values() for name in extra),
    ]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in needed}
    assert {name for name in names if not re.search(rf"\b{name}\b", table)} == set()
    assert {extra for extra in extras if f"`{extra}`" not in table} == set()


def test_docstrings_name_what_they_return() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {docstring.splitlines()[0]}"
        for path in modules()
        for node in definitions(path)
        if (docstring := ast.get_docstring(node)) and docstring.startswith("Returns what")
    ]
    assert found == []
