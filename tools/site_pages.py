"""Bring the repository's own pages and files into the documentation site: a hook of ``mkdocs.yml``.

README.md becomes the first page; CONTRIBUTING.md and CHANGELOG.md are pages too. Links are written for the repository:
here they are pointed at the site's pages, and files that they name are copied beside these.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
LINK = re.compile(r"\]\(([^)\s]+)\)")
TEXT_LINK = re.compile(r"\[([^\[\]]+)\]\(([^)\s]+)\)")


def in_site(path: Path) -> str:
    """A file's address in the site, by its path in the repository."""
    name = path.relative_to(ROOT).as_posix()
    return PAGES.get(name, name.removeprefix("docs/"))


def source(page: str) -> Path:
    """The file in the repository that a page of the site is made of."""
    return next((ROOT / name for name, there in PAGES.items() if there == page), DOCS / page)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the repository's top, and every file that some page links to."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    pages = [file.src_uri for file in files if file.src_uri.endswith(".md")]
    for page in pages:
        for link in LINK.findall(source(page).read_text(encoding="utf-8")):
            target = (source(page).parent / link.partition("#")[0]).resolve()
            if target.is_file() and not target.is_relative_to(DOCS) and in_site(target) not in files.src_uris:
                files.append(File.generated(config, in_site(target), abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point a page's links at the site; of a link to a folder only its text is left."""
    here = source(page.file.src_uri)

    def to_site(match: re.Match[str]) -> str:
        path, _, anchor = match[1].partition("#")
        # GitHub tells headings of one name apart by -1, -2; Python-Markdown by _1, _2.
        anchor = "#" + re.sub(r"(?<=cam)-(\d)$", r"_\1", anchor) if anchor else ""
        if re.match(r"[a-z]+:", path):
            return match[0]
        there = os.path.relpath(in_site((here.parent / path).resolve()), Path(page.file.src_uri).parent) if path else ""
        return f"]({Path(there).as_posix() if there else ''}{anchor})"

    def without_folders(match: re.Match[str]) -> str:
        return match[1] if (here.parent / match[2]).is_dir() else match[0]

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    for at in range(0, len(parts), 2):  # every other one is code
        parts[at] = LINK.sub(to_site, TEXT_LINK.sub(without_folders, parts[at]))
    return "".join(parts)
