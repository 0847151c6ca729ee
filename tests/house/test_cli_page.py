"""docs/cli.md is what the commands say."""

from make_cli import PAGE, page


def test_the_page_is_what_the_options_say():
    assert PAGE.read_text(encoding="utf-8") == page(), "python tools/make_cli.py writes it anew"
