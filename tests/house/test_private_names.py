"""No test uses a private name of the package's modules and classes."""

import ast

from shared import ROOT

TESTS = sorted((ROOT / "tests").rglob("*.py"))
# Names of other libraries' objects too, which tests may use.
FOREIGN = {"_pool", "_forward"}


def private(name: str) -> bool:
    # What ends in _ too is a protocol's name: __init__, _repr_png_.
    return name.startswith("_") and not name.endswith("_")


def names_of_the_package() -> set[str]:
    """Every private function, class, attribute and variable of the package."""
    found = set()
    for path in (ROOT / "src" / "camcli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return {name for name in found if private(name)} - FOREIGN


PRIVATE = names_of_the_package()


def uses(node: ast.AST) -> set[str]:
    """Private names of the package that this part of a test imports, reaches, or names to set."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "camcli":
        return {one.name for one in node.names if private(one.name)}
    if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
        return {node.attr} & PRIVATE
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
        words = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        return {word.rpartition(".")[2] for word in words if called in ("setattr", "delattr", "getattr")} & PRIVATE
    return set()


def test_no_test_uses_a_private_name() -> None:
    found = {path: set().union(*map(uses, ast.walk(ast.parse(path.read_text("utf-8"))))) for path in TESTS}
    assert not {path.relative_to(ROOT).as_posix(): sorted(names) for path, names in found.items() if names}
