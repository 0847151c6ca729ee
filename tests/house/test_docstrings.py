"""Docstrings name what is there: every entry of ``Args`` is a parameter, every one of ``Attributes`` an attribute."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared import ROOT

FILES = sorted((ROOT / "src" / "camcli").rglob("*.py"))
SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")
# What a docstring's first line does not begin with: it is a sentence by itself, with a verb or a noun in front.
OPENINGS = re.compile(r"(What|Which|Whether|How|While|Where|Why|Likewise)\b")


def name(path: Path) -> str:
    return path.relative_to(ROOT / "src" / "camcli").as_posix()


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            yield node


def entries(docstring: str, section: str) -> Iterator[str]:
    """The names that a section lists, each at the section's own indentation plus four."""
    current = ""
    for line in docstring.splitlines():
        if line.strip() in SECTIONS:
            current = line.strip()
        elif current == section and (match := re.match(r" {4}([\w*]+(?:, [\w*]+)*): ", line)):
            yield from (one.strip("*") for one in match[1].split(", "))


def parameters(function: ast.FunctionDef) -> set[str]:
    listed = function.args
    return {one.arg for one in [*listed.posonlyargs, *listed.args, *listed.kwonlyargs]} | {
        one.arg for one in (listed.vararg, listed.kwarg) if one
    }


def members(node: ast.ClassDef) -> set[str]:
    found = {one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)}
    for one in ast.walk(node):
        if isinstance(one, ast.FunctionDef):
            found |= {one.name} | (parameters(one) if one.name == "__init__" else set())
        elif isinstance(one, ast.Attribute | ast.Name) and isinstance(one.ctx, ast.Store):
            found.add(one.attr if isinstance(one, ast.Attribute) else one.id)
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_docstrings_name_what_is_there(path: Path) -> None:
    wrong = []
    for node in definitions(path):
        known = parameters(node) if isinstance(node, ast.FunctionDef) else members(node)
        for section in ("Args:", "Attributes:"):
            unknown = [one for one in entries(ast.get_docstring(node) or "", section) if one not in known]
            wrong += [f"{node.name}, line {node.lineno}: {one}" for one in unknown]
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=name)
def test_docstrings_begin_with_a_verb_or_a_noun(path: Path) -> None:
    # What `camcli methods` prints of a method is a description of the method, and is looked at there.
    if path.parent.name != "methods":
        assert not [node.name for node in definitions(path) if OPENINGS.match(ast.get_docstring(node) or "")]
