"""Nothing in the package or its tests grows beyond what a person reads at once, and each test file says its subject."""

import ast
import re
from pathlib import Path

import pytest
from shared import ROOT

SOURCE = ROOT / "src" / "camcli"
FILES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
IMPORT = re.compile(r"^(?:from|import) test_\w+", re.MULTILINE)
MOST_LINES, MOST_METHODS, LONGEST = 400, 15, 60
# Registries: their rows are as many as there are alternatives.
REGISTRIES = {"methods/__init__.py", "runs/job/job.py"}


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def docstring(function: ast.FunctionDef) -> int:
    """How many lines it has, which are as many as there are things to say of shapes, units and errors."""
    first = function.body[0]
    return (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0


def test_no_file_is_long():
    long = {name(path): lines for path in FILES if (lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES}
    assert not {one: lines for one, lines in long.items() if one not in REGISTRIES}


def test_no_file_of_tests_is_long():
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in TESTS}
    assert not {one: count for one, count in lines.items() if count > MOST_LINES}


def test_every_file_of_tests_begins_with_its_subject():
    assert not [path for path in TESTS if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]


def test_no_file_of_tests_imports_another():
    imports = {path: IMPORT.findall(path.read_text("utf-8")) for path in TESTS}
    assert not {path.name: found for path, found in imports.items() if found}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_class_and_no_function_is_large(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    methods = {one.name: sum(isinstance(part, ast.FunctionDef) for part in one.body) for one in classes}
    assert not {one: count for one, count in methods.items() if count > MOST_METHODS}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lengths = {one.name: (one.end_lineno or 0) - one.lineno + 1 - docstring(one) for one in functions}
    assert not {one: length for one, length in lengths.items() if length > LONGEST}
