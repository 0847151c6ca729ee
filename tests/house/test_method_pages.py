"""docs/methods.md is what the code says, and its images are there."""

import re

from make_methods import PAGE, PICTURES, SHEET, page

from camcli.methods import METHODS


def test_the_page_is_what_the_table_and_the_docstrings_say():
    assert PAGE.read_text(encoding="utf-8") == page(), "python tools/make_methods.py writes it anew"


def test_every_method_says_when_to_use_it_and_when_not_and_what_it_costs():
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert [text.partition("\n")[0] for text in sections] == [row.name for row in METHODS.builtin_rows]
    for row, text in zip(METHODS.builtin_rows, sections, strict=True):
        assert row.cost, row.name
        assert row.parts or ("- Use: " in text and "- Not for: " in text), row.name


def test_every_picture_is_there_and_named():
    assert SHEET.exists()
    drawn = {path.stem for path in PICTURES.glob("*.jpg")}
    assert drawn == set(METHODS.names())
    assert all(path.stat().st_size < 60_000 for path in PICTURES.glob("*.jpg"))
