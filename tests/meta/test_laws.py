"""The house's rules that a machine can check: one-way imports, labels out of the methods, every room tested."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from graphclust.methods import get_method, method_names

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "graphclust").rglob("*.py"))
MAY_IMPORT = {"graphclust": {"graphclust"}, "fedclust": {"graphclust", "fedclust"}}


def imported(tree: ast.AST) -> set[str]:
    """Top-level packages that a module imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names


def public(body: list[ast.stmt]) -> list[ast.FunctionDef | ast.ClassDef]:
    """The public functions and classes among the statements."""
    return [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    assert not imported(ast.parse(path.read_text())) & {"flwr", "fedclust", "simulations", "tests"}


@pytest.mark.parametrize("path", sorted((ROOT / "graphclust/methods").glob("*.py")), ids=lambda p: p.name)
def test_no_method_touches_labels(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    assert not [n.lineno for n in nodes if isinstance(n, ast.Attribute) and n.attr == "y"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_names_have_docstrings_and_files_stay_small(path):
    source = path.read_text()
    assert source.count("\n") <= 400
    for node in public(ast.parse(source).body):
        for inner in [node, *public(node.body if isinstance(node, ast.ClassDef) else [])]:
            assert ast.get_docstring(inner) or "__doc__" in ast.unparse(inner), f"{inner.name} has no docstring"


@pytest.mark.parametrize("name", method_names())
def test_every_method_cites_a_source_with_an_identifier(name):
    source = get_method(name).source
    assert any(mark in source for mark in ("doi:", "arXiv", "ISBN")), source


@pytest.mark.parametrize("name", method_names())
def test_one_method_one_file(name):
    assert inspect.getsourcefile(get_method(name)) == str(ROOT / f"graphclust/methods/{name}.py")


def test_importing_graphclust_is_light():
    code = "import graphclust, sys; assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
