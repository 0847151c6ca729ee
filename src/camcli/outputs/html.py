"""What pages of HTML share: templates in which every value is escaped, and hashes for their policy."""

from __future__ import annotations

import base64
import hashlib
from typing import Any


def make_template(source: str) -> Any:
    """Make a jinja2 template in which every value is escaped, and a name that is not given is an error."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)


def hash_source(text: str) -> str:
    """Return the source by which a Content-Security-Policy allows an inline style sheet or script of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
