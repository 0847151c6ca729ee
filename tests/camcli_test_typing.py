"""A pytest plugin that checks the shapes in camcli's signatures while the tests run.

It must hook the import before any test module imports camcli, hence a plugin and not a conftest.
"""

from jaxtyping import install_import_hook

_hook = install_import_hook("camcli", "beartype.beartype")
