"""A pytest plugin that checks camcli's signatures, and the shapes in them, while the tests run.

It must hook the import before any test module imports camcli, hence a plugin and not a conftest. jaxtyping has a hook
of its own, which decorates everything, also functions that are made anew at each call: that took half of the tests'
time. Here it is what is defined in a module or a class; and only signatures with shapes are handed to jaxtyping, which
sees that one name is one size throughout a call.
"""

import ast
import functools
import importlib.util
import sys
import typing
from collections.abc import Sequence
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

import jaxtyping
from beartype import beartype

_SHAPES = {name for name in vars(jaxtyping) if name[:1].isupper()}


def shaped(function: Any) -> Any:
    """A function whose arguments and result are checked, and that their shapes agree."""
    return jaxtyping.jaxtyped(function, typechecker=beartype)


def whole(made: type) -> type:
    """A class; of a dataclass the fields are checked when it is made, if their types can be looked up by then."""
    if is_dataclass(made) and "__init__" in vars(made):
        plain: Any = made.__init__  # type: ignore[misc]

        @functools.wraps(plain)
        def first(*given: Any, **named: Any) -> None:
            try:
                typing.get_type_hints(plain)
            except NameError:  # imported for type checkers only
                made.__init__ = plain  # type: ignore[misc]
            else:
                made.__init__ = beartype(plain)  # type: ignore[misc]
            made.__init__(*given, **named)  # type: ignore[misc]

        made.__init__ = first  # type: ignore[misc]
    return made


class _Decorated(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        arguments = node.args
        of = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        said = [one.annotation for one in of if one is not None and one.annotation is not None]
        said += [node.returns] if node.returns is not None else []
        names = {part.id for one in said for part in ast.walk(one) if isinstance(part, ast.Name)}
        # Innermost, since decorators may take annotations away.
        node.decorator_list.append(_named("shaped" if names & _SHAPES else "beartype", node))
        return node  # without what is defined in it

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        node.decorator_list.insert(0, _named("whole", node))
        return node


def _named(decorator: str, at: ast.stmt) -> ast.expr:
    name = ast.parse(f"__import__('sys').modules[{__name__!r}].{decorator}", mode="eval").body
    for part in ast.walk(name):
        ast.copy_location(part, at)
    return name


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        # Never from the cache of compiled modules, nor into it.
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:
        tree = _Decorated().visit(ast.parse(data, path))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # All but the command line: typer hands its callbacks a context of another type than their annotation must name.
        package, _, room = fullname.partition(".")
        if package != "camcli" or not room or room.split(".")[0] == "cli":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


assert importlib.util.find_spec("camcli") is not None
sys.meta_path.insert(0, _Finder())
