"""A pytest plugin that checks camcli's signatures, and the shapes in them, while the tests run.

It must hook the import before any test module imports camcli, hence a plugin and not a conftest. jaxtyping has a hook
of its own, which decorates everything, also functions that are made anew at each call: that took half of the tests'
time. Here it is what is defined in a module or a class; and only signatures with shapes are handed to jaxtyping, which
sees that one name is one size throughout a call.
"""

import ast
import functools
import importlib.util
import re
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

import jaxtyping
from beartype import beartype

_SHAPES = {name for name in vars(jaxtyping) if name[:1].isupper()}
# Of each module, what it imports for type checkers only.
_imports: dict[str, list[ast.stmt]] = {}


def shaped(function: Any) -> Any:
    """A function whose arguments and result are checked, and that their shapes agree."""
    return _later(function, functools.partial(jaxtyping.jaxtyped, typechecker=beartype))


def plain(function: Any) -> Any:
    """A function whose arguments and result are checked."""
    return _later(function, beartype)


def whole(made: Any) -> Any:
    """A class; of a dataclass the fields are checked when it is made."""
    if is_dataclass(made) and "__init__" in vars(made):
        names = {
            name for one in vars(made).get("__annotations__", {}).values() for name in re.findall(r"\w+", str(one))
        }
        made.__init__ = (shaped if names & _SHAPES else plain)(made.__init__)
    return made


def _later(function: Any, check: Callable[[Any], Any]) -> Any:
    """A function that is checked from its first call on, when all that its signature names is there."""
    checked = None

    @functools.wraps(function)
    def called(*given: Any, **named: Any) -> Any:
        nonlocal checked
        if checked is None:
            try:
                function.__annotations__ = typing.get_type_hints(
                    function, localns=_known(function.__module__), include_extras=True
                )
                checked = check(function)
            except NameError:  # the name of a type that stands for one that only another room knows
                checked = function
        return checked(*given, **named)

    return called


@functools.cache
def _known(module: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(ast.Module(_imports.get(module, []), []), module, "exec"), names)
    return names


class _Decorated(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        arguments = node.args
        of = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        said = [one.annotation for one in of if one is not None and one.annotation is not None]
        said += [node.returns] if node.returns is not None else []
        names = {part.id for one in said for part in ast.walk(one) if isinstance(part, ast.Name)}
        # Innermost, since decorators may take annotations away.
        node.decorator_list.append(_named("shaped" if names & _SHAPES else "plain", node))
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
        tree = ast.parse(data, path)
        only = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        _imports[self.name] = [part for node in only for part in node.body]
        tree = _Decorated().visit(tree)
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
