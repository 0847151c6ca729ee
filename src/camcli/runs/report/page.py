"""The page itself: a template, a style sheet and a script, put together under a policy that lets nothing in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from camcli.outputs.html import hash_source, make_template

# The parts of the script, in their order; browsers run no modules from disk.
SCRIPTS = ("images.js", "data.js", "address.js", "charts.js", "grid.js", "viewer.js", "main.js")
STYLES = ("page.css", "viewer.css")


@dataclass(frozen=True, slots=True)
class Assets:
    """Style sheet and script of a page."""

    style: str
    script: str

    @classmethod
    def load(cls) -> Assets:
        """Read them from the package."""
        return cls("".join(map(_read, STYLES)), '"use strict";\n' + "".join(map(_read, SCRIPTS)))


def render(facts: dict[str, Any], assets: Assets, folder: str, chunks: Sequence[str]) -> str:
    """Return the page's HTML.

    Args:
        facts: what it says of the run.
        assets: its style sheet and script.
        folder: folder of its files; empty if the page holds all itself.
        chunks: names of its files of data.
    """
    from markupsafe import Markup

    template = make_template(_read("report.html.jinja"))
    page: str = template.render(
        **{name: value for name, value in facts.items() if name != "data"},
        data_json=Markup(escape_json(dump_json(facts["data"]))),
        policy=make_policy(assets, inline=not folder),
        folder=folder,
        chunks=chunks,
        style=Markup(assets.style),
        script=Markup(assets.script),
    )
    return page


def make_policy(assets: Assets, inline: bool) -> str:
    """Return the page's Content-Security-Policy: nothing is loaded from elsewhere, and no other script runs.

    ``file:`` is named since browsers differ in whether ``'self'`` is that on a page from disk.
    """
    if inline:
        script, style, images = hash_source(assets.script), hash_source(assets.style), "blob:"
    else:
        script = style = images = "'self' file:"
    parts = ("default-src 'none'", f"script-src {script}", f"style-src {style}", f"img-src {images}")
    return "; ".join((*parts, "base-uri 'none'", "form-action 'none'"))


def dump_json(value: Any) -> str:
    """Return a value as JSON in ASCII: no character is left that a browser or a terminal could take for something."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def escape_json(text: str) -> str:
    """Return JSON in which nothing can end, or begin, an element of HTML."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")
