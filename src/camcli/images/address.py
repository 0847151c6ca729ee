"""Addresses of what is in object stores and on the web.

An address is kept as a path, in which its two slashes are one: ``s3:/bucket/cat.jpg``.
"""

import re
from pathlib import Path

# Schemes that are read, and the extra that each needs: not fsspec's others, among which are local files and chains.
SCHEMES = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "hf": "", "http": "http", "https": "http", "memory": ""}
WEB = frozenset({"http", "https"})
# Those to which nothing is written.
READ_ONLY = WEB | {"hf"}
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
PATH_OF_URL = re.compile(rf"({'|'.join(SCHEMES)}):/([^/].*)", re.DOTALL)


def is_url(text: str) -> bool:
    """Return whether a text is an address."""
    return "://" in text and URL.match(text) is not None


def show_path(path: Path) -> str:
    """Return a path, or the address that it stands for, for people and records."""
    return to_url(path) or str(path)


def to_url(path: Path) -> str:
    """Return the address that a path stands for; empty for a path of a file."""
    found = PATH_OF_URL.fullmatch(str(path))
    return f"{found[1]}://{found[2]}" if found else ""
