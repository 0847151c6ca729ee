"""Logger of the package, and failures of single images on it."""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("camcli")
# What the console says anyway: Python does not print it again where no command keeps a log.
SAID = LOGGER.getChild("said")
SAID.addHandler(logging.NullHandler())


def log_failure(name: str, error: BaseException) -> None:
    """Log the traceback of a failure that ends one image only; nothing of it is kept alive."""
    LOGGER.debug("%s failed", name, exc_info=error)
