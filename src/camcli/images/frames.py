"""Pages and frames of image files: counting them and choosing one."""

from PIL import Image

from camcli.base.errors import PictureError

# Prefix of the note.
FIRST_PAGE_NOTE = "page 1 of"
# In these, what follows the image is that of the other eye, a preview or a gain map, not another page.
SINGLE_PAGE_FORMATS = frozenset({"JPEG", "MPO"})


def count_pages(image: Image.Image) -> int:
    """Count the pages of an opened image's file: frames of an animation or directories of a TIFF.

    Raises:
        Exception: whatever Pillow raises for a file that is cut short.
    """
    if image.format in SINGLE_PAGE_FORMATS:
        return 1
    # For a GIF `is_animated` is quicker than `n_frames`.
    return int(getattr(image, "n_frames", 1)) if getattr(image, "is_animated", False) else 1


def seek_page(image: Image.Image, page: int) -> tuple[str, ...]:
    """Select a page of an opened image, and return notes on pages that are not read.

    Args:
        image: an image that is not loaded yet.
        page: number of the page, from 1; 0 for the first, with a note if there are others.

    Raises:
        PictureError: there is no such page.
    """
    if page:
        try:
            image.seek(page - 1)
        except (EOFError, ValueError):
            raise PictureError(f"has no page {page}") from None
        return ()
    try:
        count = count_pages(image)
    except Exception as error:  # the first page may be intact even if those after it are damaged
        image.seek(0)
        return (f"the pages after its first cannot be counted: {error or type(error).__name__}",)
    return (f"{FIRST_PAGE_NOTE} {count}: --pages all for each",) if count > 1 else ()
