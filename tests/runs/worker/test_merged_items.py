"""Images in a row that are done share an item."""

from itertools import groupby

import pytest

from camcli.images.source import PictureSource
from camcli.runs.worker import item as module
from camcli.runs.worker.item import Item, merge_done


@pytest.mark.parametrize("marks", ["", "d", "n", "ddnd", "dddddddn", "nddrdd", "rr"])
def test_images_keep_their_order_and_number(monkeypatch: pytest.MonkeyPatch, marks: str) -> None:
    # Done, new, and to be drawn again from what is kept, which is work too.
    monkeypatch.setattr(module, "MAX_COUNT", 3)
    given = [
        Item(PictureSource(mark, mark), skipped=mark != "n", earlier=("kept",) if mark == "r" else ()) for mark in marks
    ]
    merged = list(merge_done(given))
    assert "".join(one.source.name * one.count for one in merged) == marks
    assert all(one.count == 1 or one.source.name == "d" for one in merged)
    longest = max((len(list(some)) for mark, some in groupby(marks) if mark == "d"), default=0)
    assert max((one.count for one in merged), default=0) == (min(3, longest) or min(1, len(marks)))
