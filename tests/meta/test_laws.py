"""The house's rules that a machine can check: one-way imports, labels out of the methods, every room tested."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from fedclust.algorithms import algorithm_names, get_algorithm
from graphclust.methods import get_method, method_names

ROOT = Path(__file__).parents[2]
ROOMS = ("graphclust", "fedclust", "simulations")  # each may import itself and those before it
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
# the Flower side of fedclust; everything else computes without Flower
FLOWER = {"client_app.py", "server_app.py", "strategy.py", "messages.py", "flwr_compat.py", "rounds.py", "newcomers.py",
          "grid.py", "forwarding.py", "records.py", "answers.py"}


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
    room, names = path.relative_to(ROOT).parts[0], imported(ast.parse(path.read_text()))
    assert not names & {"tests", *ROOMS[ROOMS.index(room) + 1:]}
    if room == "graphclust" or (room == "fedclust" and path.name not in FLOWER):
        assert "flwr" not in names


def plain(requirement: str) -> str:
    """The normalised name of the distribution that a requirement asks for."""
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def test_what_is_imported_is_declared_and_what_is_declared_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {plain(r) for r in project["dependencies"]}
    used = set().union(*(imported(ast.parse(path.read_text())) for path in SOURCES))
    providers = packages_distributions()
    for name in used - set(sys.stdlib_module_names) - set(ROOMS):
        assert {plain(d) for d in providers[name]} & declared, f"{name} is imported and not in pyproject.toml"
    pinned = {plain(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1].isalpha()}
    extras = {plain(r) for group in project["optional-dependencies"].values() for r in group} - {"graphclust"}
    assert declared | extras <= pinned


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


@pytest.mark.parametrize("name", algorithm_names())
def test_every_algorithm_cites_a_source_with_an_identifier(name):
    source = get_algorithm(name).source
    assert any(mark in source for mark in ("doi:", "arXiv", "ISBN")), source


@pytest.mark.parametrize("name", algorithm_names())
def test_one_algorithm_one_file(name):
    assert inspect.getsourcefile(get_algorithm(name)) == str(ROOT / f"fedclust/algorithms/{name}.py")


@pytest.mark.parametrize("path", sorted((ROOT / "fedclust/algorithms").glob("*.py")), ids=lambda p: p.name)
def test_no_algorithm_sees_test_data_or_the_truth(path):
    names = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
    assert not names & {"test", "validation", "truth", "clients_data"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_private_flower_names_live_in_one_file(path):
    if path.name == "flwr_compat.py":
        return
    nodes = ast.walk(ast.parse(path.read_text()))
    modules = [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("flwr")]
    assert not [m for m in modules if "supercore" in m or "proto" in m or "._" in m]


@pytest.mark.parametrize("name", method_names())
def test_one_method_one_file(name):
    assert inspect.getsourcefile(get_method(name)) == str(ROOT / f"graphclust/methods/{name}.py")


def test_importing_graphclust_is_light():
    code = "import graphclust, sys; assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_federations_do_without_torch_geometric():
    code = "import simulations.run, fedclust.report, graphclust.bench, sys; assert 'torch_geometric' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
