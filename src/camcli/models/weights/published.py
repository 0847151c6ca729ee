"""Errors for published weights that cannot be loaded."""

from __future__ import annotations

from pathlib import Path

from camcli.base.errors import RequestError
from camcli.models.weights import checkpoint, hub


def unreadable_error(
    name: str, path: Path, error: Exception, *, fetched: bool, files: tuple[str, ...] = ()
) -> RequestError:
    """Make the error for a model's unreadable weights, with the reason in the file itself or the library's message.

    Args:
        name: the model's name.
        path: the weights file, or its folder.
        error: the library's error.
        fetched: True if the file is in a cache, and can be downloaded again; False if it is the user's own.
        files: possible names of the weights file in a folder.
    """
    file = next((path / one for one in files if (path / one).is_file()), path)
    reason, hint = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", ""
    if file.is_file() and file.suffix not in (".npz", ".npy"):
        try:
            checkpoint.read(file)
        except RequestError as read_error:
            reason, hint = read_error.message, read_error.hint
    if fetched:
        hint = hub.refetch_hint(file)
    return RequestError(f"the weights of {name} in {str(path)!r} cannot be loaded: {reason}", hint)
