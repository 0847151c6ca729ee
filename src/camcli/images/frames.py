"""Files with several pages or frames: how many there are, and which is read."""

from PIL import Image

from camcli.base.errors import PictureError

# How the note begins.
ONE_OF = "page 1 of"
# Behind the picture in these lies the other eye's, a preview or a table of brightness, and no other page.
ALONE = frozenset({"JPEG", "MPO"})


def pages_in(image: Image.Image) -> int:
    """How many pages an opened picture's file has, that is frames of an animation or directories of a TIFF.

    Raises:
        Exception: whatever Pillow says of a file that ends in the middle of one.
    """
    if image.format in ALONE:
        return 1
    # Of a GIF whether there are two is known sooner than how many there are.
    return int(getattr(image, "n_frames", 1)) if getattr(image, "is_animated", False) else 1


def turn_to(image: Image.Image, page: int) -> tuple[str, ...]:
    """Have this page read of an opened picture; what is to be said of those that are not.

    Args:
        image: not loaded yet.
        page: from 1 on; 0 for the first, of which then is said if it is not the only one.

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
        count = pages_in(image)
    except Exception as error:  # whatever is wrong with what follows, the first page may be whole
        image.seek(0)
        return (f"the pages behind its first cannot be counted: {error or type(error).__name__}",)
    return (f"{ONE_OF} {count}: --pages all for each",) if count > 1 else ()
