"""Inputs that are refused before the search, with the reasons."""

# Paths stay strings, as in the search.
# ruff: noqa: PTH112, PTH120, PTH208

import os

from camcli.base import weight_files
from camcli.base.errors import PictureError, RequestError, did_you_mean
from camcli.images import archives, tables
from camcli.images.name_stream import is_image


def check_names(start: bytes, what: str, hint: str = "save it and name the file: camcli explain photo.jpg") -> None:
    """Check that what should be names of images is not an image, by its first bytes."""
    if is_image(start):
        raise RequestError(f"{what} holds an image, and is to hold names of images, one a line", hint)


def check_file(given: str) -> None:
    """Check that a file that is named is neither one of weights nor an archive or a table that cannot be read."""
    if archives.is_archive(given):
        if os.path.lexists(given) and not os.path.isdir(given):
            try:
                archives.check_archive(given)
            except PictureError as error:
                raise RequestError(f"the input {given!r} {error.message}", error.hint) from None
        return
    named: list[tuple[str, str]] = []
    try:
        named = tables.find_named_tables(given)
        for table in named[:1]:
            tables.check_table(*table)
            return
    except PictureError as error:
        hint = error.hint.replace(named[0][0], given.rstrip("/")) if named else error.hint
        raise RequestError(f"the input {given!r} {error.message}", hint) from None
    other = weight_files.identify_non_picture(given)
    if other:
        raise RequestError(f"the input {given!r} is {other.description}", other.hint)


def suggest_path(given: str) -> str:
    """Return a line that suggests names like the first part of a missing path that does not exist; may be empty."""
    folder, name = os.path.split(os.path.normpath(given))
    while folder and not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder, name = os.path.split(folder)
    try:
        near = did_you_mean(name, os.listdir(folder or "."))
    except OSError:
        near = ""
    return f"in {folder!r}: {near}" if folder and near else near


def make_missing_error(given: str, what: str = "file or folder", hint: str = "") -> RequestError:
    """Return the error for a path that does not exist."""
    where = suggest_path(given)
    if given.startswith("pipe:"):
        return RequestError(f"{given!r} is a command, and camcli runs none", "fetch its output first, to a file")
    return RequestError(f"there is no {what} {given!r}", "\n".join(filter(None, [where, hint])))
