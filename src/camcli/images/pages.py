"""Pages of files that have several, each as an image of its own."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

from camcli.base.errors import PictureError
from camcli.images import parse_page_ranges
from camcli.images.dicom import count_frames, is_dicom
from camcli.images.files import open_file, read_stamp
from camcli.images.formats import FORMATS
from camcli.images.frames import count_pages
from camcli.images.opening import open_image
from camcli.images.source import PictureSource
from camcli.images.videos import check_pyav, index_video, is_video


def expand_pages(sources: Iterable[PictureSource], words: str, every: str = "") -> Iterator[PictureSource]:
    """Replace each source of several pages by one source for each requested page, and videos by their frames.

    The name of a page is that of its file and ``.page3``; in a file with one page it is the file's own. Files are
    opened to count their pages when they are reached, and not at all for ``first``.

    Args:
        sources: images, as from :func:`camcli.images.find.find`.
        words: ``first``, ``all``, or numbers and ranges: ``1,3``, ``2-5``. A range is cut to the pages of the file; a
            single number that a file of several pages lacks gives a source with an error, as does a file that has none
            of the pages.
        every: step between a video's frames: ``1s``, ``10``; empty if videos are not read. A frame is named by its
            time: ``clip.mp4.t0012.040s``. What of a video cannot be read gives a source with an error.

    Raises:
        RequestError: ``words`` or ``every`` cannot be read, or ``every`` is given and PyAV is not installed.
    """
    ranges = parse_page_ranges(words)
    if every:
        check_pyav()
        sources = chain.from_iterable(_expand_video(source, every) for source in sources)
    if not ranges:
        return iter(sources)
    return chain.from_iterable(_expand_source(source, ranges, words) for source in sources)


def _expand_source(
    source: PictureSource, ranges: Sequence[tuple[int, int | None]], words: str
) -> Iterator[PictureSource]:
    count = 1 if source.error or source.page else count_file_pages(source.path, read_stamp(source.file))
    if isinstance(count, str):
        yield replace(source, error=count)
        return
    if count == 0 or source.error:  # decoding reports the error
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


def _expand_video(source: PictureSource, every: str) -> Iterator[PictureSource]:
    if source.error or not is_video(source.path.name):
        yield source
        return
    try:
        index = index_video(source.path, read_stamp(source.file))
    except PictureError as error:
        yield replace(source, error="; ".join(filter(None, [error.message, error.hint])))
        return
    for page in index.choose(every):
        yield replace(source, name=f"{source.name}.t{index.seconds(page):08.3f}s", page=page)
    if index.damage:
        yield replace(source, name=f"{source.name}.rest", page=len(index.times) + 1, error=index.damage)


@lru_cache(maxsize=100_000)
def count_file_pages(path: Path, _stamp: str) -> int | str:
    """Count the pages of a file; 0 if it is not an image, or the reason why they cannot be counted."""
    with ExitStack() as held:
        try:
            file = open_file(path)
            held.callback(file.close)
            if is_dicom(file):
                return count_frames(file)
            file.seek(0)
            image = open_image(file, FORMATS)
        except Exception:
            return 0
        try:
            return count_pages(image)
        except Exception as error:  # a damaged file can make a decoder raise anything
            return f"its pages cannot be counted: {error or type(error).__name__}"
