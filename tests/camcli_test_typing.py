"""A pytest plugin that checks the shapes in camcli's signatures while the tests run.

It must hook the import before any test module imports camcli, hence a plugin and not a conftest.
"""

import importlib.util
import pkgutil

from jaxtyping import install_import_hook

_package = importlib.util.find_spec("camcli")
assert _package is not None
_rooms = [module.name for module in pkgutil.iter_modules(_package.submodule_search_locations)]
# All but the command line: typer hands its callbacks a context of another type than its own annotation must name.
_hook = install_import_hook([f"camcli.{room}" for room in _rooms if room != "cli"], "beartype.beartype")
