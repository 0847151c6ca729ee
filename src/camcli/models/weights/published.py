"""Published weights that cannot be loaded: why, and how they are had anew."""

from __future__ import annotations

from pathlib import Path

from camcli.base.errors import RequestError
from camcli.models.weights import checkpoint, hub


def unreadable(name: str, place: Path, error: Exception, *, fetched: bool, files: tuple[str, ...] = ()) -> RequestError:
    """Why the weights of a model cannot be loaded: what is wrong with the file itself, or what the library says.

    Args:
        name: of the model.
        place: the file, or the folder that it lies in.
        error: what loading it ended with.
        fetched: whether it lies in a cache, and comes again if it is not there; else it is the user's own.
        files: what files of weights are called in such a folder.
    """
    file = next((place / one for one in files if (place / one).is_file()), place)
    reason, hint = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", ""
    if file.is_file() and file.suffix not in (".npz", ".npy"):
        try:
            checkpoint.read(file)
        except RequestError as told:
            reason, hint = told.message, told.hint
    if fetched:
        hint = hub.anew(file)
    return RequestError(f"the weights of {name} in {str(place)!r} cannot be loaded: {reason}", hint)
