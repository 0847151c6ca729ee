"""Images in object stores and behind web addresses, through fsspec."""

import io
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from camcli.base.errors import PictureError, did_you_mean
from camcli.base.log import LOGGER
from camcli.images.address import SCHEMES, URL, WEB
from camcli.images.formats import CONTAINER_SUFFIXES, SUFFIXES, suffix_of
from camcli.images.naming import mark_text, output_name

T = TypeVar("T")

# An image is read into memory as a whole; a server could send for ever.
MAX_BYTES, BLOCK_BYTES = 2**30, 2**20
# Seconds before each further try of what failed for a while.
WAITS = (0.5, 1.0, 2.0)
# Answers of web servers that another try may change: too slow, too many requests, and all from 500.
TRY_AGAIN = frozenset({408, 425, 429})
# Stamps from listings, which are asked for soon after; what is forgotten is asked of the store.
MAX_STAMPS = 10_000
# Stamp of what has none: whether the image behind a web address was changed is not asked for every image.
WEB_STAMP = "address"


class Listed(NamedTuple):
    """An image of a listing, or a folder that cannot be listed.

    Attributes:
        url: its address.
        error: reason why it cannot be read.
    """

    url: str
    error: str = ""


def check_url(url: str) -> None:
    """Check that an address is of a kind that is read, without asking for it.

    Raises:
        PictureError: it is not.
    """
    found = URL.fullmatch(url)
    scheme, rest = (found[1], found[2]) if found else ("", "")
    known = ", ".join(f"{one}://" for one in SCHEMES if one != "memory")
    if scheme not in SCHEMES:
        raise PictureError(
            f"addresses of {scheme}:// are not read", did_you_mean(scheme, SCHEMES) or f"read are {known}"
        )
    if "@" in rest.partition("/")[0] and scheme in WEB:
        raise PictureError("an address with a password in it is not read", "it would be in every record")
    plain = rest.partition("?")[0] if scheme in WEB else rest
    if "" in plain.split("/")[:-1] or {".", ".."} & set(plain.split("/")) or not plain.strip("/"):
        raise PictureError("an address with an empty part, . or .. in it is not read")
    if suffix_of(plain) in CONTAINER_SUFFIXES:
        raise PictureError("archives and tables are read from local disks only", "fetch it first")


def list_images(url: str, without: str = "") -> Iterator[Listed]:
    """Iterate over the images that an address names: itself, those below a folder, or those that match a pattern.

    The names of one folder are held at a time. ``*`` stays within one folder, ``**`` goes through all below.

    Args:
        url: the address.
        without: address of a folder that is left out, unless it is named itself.

    Raises:
        PictureError: it cannot be read or listed; raised when the first is asked for.
    """
    check_url(url)
    scheme, rest = url.split("://", 1)
    if scheme in WEB:
        if "*" in rest:
            raise PictureError("web servers do not list their files", "name the addresses in a list: @urls.txt")
        open_store(scheme)
        yield Listed(url)
        return
    parts = rest.split("/")
    fixed = next((place for place, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    top = "/".join(parts[:fixed]).rstrip("/")
    if not top:
        raise PictureError("the bucket is to be named without wildcards", f"such as {scheme}://bucket/**.jpg")
    if fixed == len(parts) and _ask(url, lambda store: store.info(top))["type"] == "file":
        yield Listed(url)
        return
    if f"{scheme}://{top}" == without:
        raise PictureError("this is the output folder", "name another one by --out")
    regex = _to_regex(rest) if fixed < len(parts) else f"{re.escape(top)}/.*"
    try:
        matches = re.compile(regex, re.DOTALL).fullmatch
    except re.error as error:
        raise PictureError(f"is not a pattern: {error}") from error
    depth = 10**6 if fixed == len(parts) or "**" in rest else len(parts) - fixed
    yield from _walk(scheme, top, matches, depth, without)


def _walk(scheme: str, folder: str, matches: Callable[[str], Any], depth: int, without: str) -> Iterator[Listed]:
    entries = _ask(f"{scheme}://{folder}", lambda store: store.ls(folder, detail=True, refresh=True))
    for entry in sorted(entries, key=lambda one: str(one["name"])):
        name = entry["name"].strip("/")
        last = name.rpartition("/")[2]
        if name == folder or last.startswith("."):
            continue
        url = f"{scheme}://{name}"
        if entry["type"] == "directory":
            if depth > 1 and url != without:
                try:
                    yield from _walk(scheme, name, matches, depth - 1, without)
                except PictureError as error:
                    yield Listed(url, error.message)
        elif suffix_of(name) in SUFFIXES and matches(name):
            _remember(url, _make_stamp(entry))
            yield Listed(url)


def _to_regex(pattern: str) -> str:
    """Return the regular expression of a pattern."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    steps = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]|.", pattern, re.DOTALL)
    # Of a set of characters, `!` at its beginning means others, and `-` a range.
    sets = {one: re.sub(r"[\^\\\[]", r"\\\g<0>", one[1:-1]) for one in steps if len(one) > 1 and one[0] == "["}
    sets = {one: f"[^{inside[1:]}]" if inside[0] == "!" else f"[{inside}]" for one, inside in sets.items()}
    return "".join(words.get(one) or sets.get(one) or re.escape(one) for one in steps)


def name_url(url: str) -> str:
    """Return the name under the output folder of what is behind an address, without its query."""
    scheme, rest = url.split("://", 1)
    rest, _, query = rest.partition("?") if scheme in WEB else (rest, "", "")
    # No name of a file begins so: naming.output_name.
    name = "%" + output_name(f"/{scheme}/{rest.strip('/')}", "/")
    return mark_text(name, query) if query else name


# --- reading ------------------------------------------------------------------------------------------------------


def read_url(url: str) -> io.BytesIO:
    """Read the image behind an address into memory; what fails for a while is tried again.

    Raises:
        PictureError: it cannot be read.
    """
    check_url(url)
    content: bytes = _ask(url, lambda store: _read(store, url))
    if not content:
        raise PictureError("the file is empty")
    return io.BytesIO(content)


def _read(store: Any, url: str) -> bytes:
    # With a size of its own, a web server's file is not asked for its size first, and comes as a stream.
    how = {"block_size": 0, "size": 1} if url.split("://")[0] in WEB else {}
    content = bytearray()
    with store.open(url, "rb", **how) as file:
        while block := file.read(BLOCK_BYTES):
            content += block
            if len(content) > MAX_BYTES:
                raise PictureError(f"it has more than {MAX_BYTES:,} bytes")
    return bytes(content)


_stamps: OrderedDict[str, str] = OrderedDict()


def read_url_stamp(url: str) -> str:
    """Return the size, and the checksum or time, of what is behind an address; empty if it cannot be known."""
    if url.split("://")[0] in WEB:
        return WEB_STAMP
    if known := _stamps.get(url):
        return known
    try:
        return _remember(url, _make_stamp(_ask(url, lambda store: store.info(url))))
    except PictureError:
        return ""


def _remember(url: str, stamp: str) -> str:
    _stamps[url] = stamp
    _stamps.move_to_end(url)
    while len(_stamps) > MAX_STAMPS:
        _stamps.popitem(last=False)
    return stamp


def _make_stamp(entry: dict[str, Any]) -> str:
    marks = ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "updated", "mtime", "created")
    mark = next((str(entry[one]) for one in marks if entry.get(one)), "")
    return f"{entry.get('size', 0)}-" + re.sub(r"[^\w:+/=.-]", "", mark)


def _ask(url: str, work: Callable[[Any], T]) -> T:
    scheme = url.split("://")[0]
    store = open_store(scheme)
    # The hub's library tries again by itself, for longer.
    return ask_again(url, lambda: work(store), () if scheme == "hf" else WAITS)


def ask_again(url: str, work: Callable[[], T], waits: Sequence[float], done: str = "read") -> T:
    """Return what a store answers; ask again after errors that may pass.

    Args:
        url: the address, for messages.
        work: asks it.
        waits: seconds before each further try.
        done: what is done, as a participle, for messages.

    Raises:
        PictureError: what went wrong, and what to do.
    """
    for wait in (*waits, None):
        try:
            return work()
        except PictureError:
            raise
        except Exception as error:  # stores raise what they like
            if wait is None or not _may_pass(error):
                raise _explain(url, error, done) from error
            LOGGER.info("%s: %s; trying again", url, error)
            time.sleep(wait)
    raise AssertionError


def open_store(scheme: str, **options: Any) -> Any:
    """Open the stores of a scheme, whose library may be missing.

    Raises:
        PictureError: it is, or the store cannot be opened.
    """
    import fsspec

    extra = SCHEMES[scheme]
    try:
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise PictureError(
            f"addresses of {scheme}:// need a library", f"pip install 'camcli-vision[{extra}]'"
        ) from error
    except Exception as error:  # such as credentials that cannot be found
        raise _explain(f"{scheme}://", error) from error


def _get_status(error: Exception) -> Any:
    """Return the status of a web server's answer, wherever a store's library keeps it; None if there was none."""
    response = getattr(error, "response", None)
    return getattr(error, "status", None) or getattr(error, "code", None) or getattr(response, "status_code", None)


def _may_pass(error: Exception) -> bool:
    status = _get_status(error)
    if isinstance(status, int) and 400 <= status < 600:
        return status >= 500 or status in TRY_AGAIN
    lasting = (
        FileNotFoundError,
        FileExistsError,
        PermissionError,
        IsADirectoryError,
        NotADirectoryError,
        ValueError,
        TypeError,
        KeyError,
    )
    return not isinstance(error, lasting) and not _lacks_credentials(error) and not _is_forbidden(error)


def _is_forbidden(error: Exception) -> bool:
    """Return whether HF_HUB_OFFLINE forbids to ask."""
    return type(error).__name__ == "OfflineModeIsEnabled"


def _lacks_credentials(error: Exception) -> bool:
    return "credential" in f"{type(error).__name__} {error}".lower()


def _explain(url: str, error: Exception, done: str = "read") -> PictureError:
    status = _get_status(error)
    scheme, rest = url.split("://", 1)
    said = (str(error) or type(error).__name__).splitlines()[0][:300]
    if isinstance(error, FileNotFoundError) or status == 404:
        where = "" if scheme in WEB else f" (is the bucket {rest.partition('/')[0]!r} right?)"
        where = " (or it is private: hf auth login)" if scheme == "hf" else where
        return PictureError(f"there is nothing at this address{where}")
    if _is_forbidden(error):
        return PictureError("the hub is not asked, as HF_HUB_OFFLINE is set")
    if _lacks_credentials(error):
        return PictureError(
            f"no credentials are found: {said}",
            "set them up as for aws or gcloud; a public bucket of S3 is read with FSSPEC_S3_ANON=true",
        )
    if isinstance(error, PermissionError) or status in (401, 403):
        return PictureError(f"no permission: {said}", "are the credentials those of someone who may?")
    return PictureError(f"cannot be {done}: {said}")
