"""docs/SKILL.md and docs/llms.txt are what the commands and the pages say."""

from make_skill import INDEX, SKILL, index, skill


def test_the_pages_for_assistants_are_what_the_options_say():
    assert SKILL.read_text(encoding="utf-8") == skill(), "python tools/make_skill.py writes it anew"
    assert INDEX.read_text(encoding="utf-8") == index(), "python tools/make_skill.py writes it anew"
