"""The pages of files that have several, each a picture of its own."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

from camcli.images import page_ranges
from camcli.images.formats import FORMATS
from camcli.images.frames import pages_in
from camcli.images.naming import stamp
from camcli.images.opening import opened
from camcli.images.source import Source


def paged(sources: Iterable[Source], words: str) -> Iterator[Source]:
    """The sources, those of several pages once for each page asked for.

    A page's name is that of its file and ``.page3``; of a file with one page the file's own. Files are opened for
    their number of pages when their turn comes, and not at all for ``first``.

    Args:
        sources: pictures, as :func:`camcli.images.find.find` gives them.
        words: ``first``, ``all``, or numbers and ranges: ``1,3``, ``2-5``, of which the part counts that a file has. A
            number that a file of several pages lacks is told as a failure; so is one of which none is left.
    """
    ranges = page_ranges(words)
    if not ranges:
        return iter(sources)
    return chain.from_iterable(_pages(source, ranges, words) for source in sources)


def _pages(source: Source, ranges: Sequence[tuple[int, int | None]], words: str) -> Iterator[Source]:
    count = 1 if source.error else _count(source.path, stamp(source.path))
    if isinstance(count, str):
        yield replace(source, error=count)
        return
    if count == 0 or source.error:  # what is wrong with it is told when it is decoded
        yield source
        return
    numbers = dict.fromkeys(
        number
        for first, last in ranges
        for number in range(first, (first if first == last else min(last or count, count)) + 1)
    )
    if count == 1 and 1 in numbers:
        yield source
        return
    if not any(number <= count for number in numbers):
        yield replace(source, error=f"has {count} page{'s' * (count > 1)}, none of them of --pages {words}")
        return
    for number in numbers:
        error = "" if number <= count else f"has no page {number}, but {count}"
        yield replace(source, name=f"{source.name}.page{number}", page=number, error=error)


@lru_cache(maxsize=100_000)
def _count(path: Path, _stamp: str) -> int | str:
    """How many pages a file has; 0 if it is no picture, and a reason if they cannot be counted."""
    with ExitStack() as held:
        try:
            image = opened(held.enter_context(path.open("rb")), FORMATS)
        except Exception:
            return 0
        try:
            return pages_in(image)
        except Exception as error:  # a damaged file can make a decoder stumble in any way
            return f"its pages cannot be counted: {error or type(error).__name__}"
