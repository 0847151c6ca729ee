"""Images behind addresses are listed, named, read with further tries, and refused with the reason."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
from image_files import SMALL, png

from camcli.base.errors import PictureError, RequestError
from camcli.images import remote
from camcli.images.decode import decode
from camcli.images.files import read_stamp
from camcli.images.find import find
from camcli.images.source import PictureSource

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """A store in memory, with three images in a bucket."""
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))
    store = fsspec.filesystem("memory")
    for name in ("b/a.png", "b/p/1.png", "b/p/q/2.PNG", "b/p/.hidden.png", "b/p/notes.txt"):
        store.pipe_file(name, png(SMALL))
    yield store
    store.store.clear()


def found(*inputs):
    return list(find(inputs, out=Path("out")))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("memory://b/a.png", ["a.png"]),
        ("memory://b", ["a.png", "p/1.png", "p/q/2.PNG"]),
        ("memory://b/p/", ["p/1.png", "p/q/2.PNG"]),
        ("memory://b/p/*.png", ["p/1.png"]),
        ("memory://b/**.png", ["a.png", "p/1.png"]),
        ("memory://b/**/*", ["a.png", "p/1.png", "p/q/2.PNG"]),
        ("memory://b/p/[!2].p?g", ["p/1.png"]),
        ("memory://b/{a,p/1}.png", ["a.png", "p/1.png"]),
    ],
)
def test_addresses_are_listed_and_named(given, names):
    assert [one.name for one in found(given)] == ["%memory/b/" + name for name in names]


def test_an_image_behind_an_address_is_read_and_its_changes_show(memory):
    (source,) = found("memory://b/a.png")
    assert source.display_name == "memory://b/a.png"
    assert (np.asarray(decode(source.path)) == SMALL).all()
    assert PictureSource(source.location, "").path == source.path
    before = read_stamp(source.path)
    assert before.startswith(f"{len(png(SMALL))}-")
    memory.pipe_file("b/a.png", png(SMALL) + b"x")
    found("memory://b")
    assert read_stamp(source.path) != before
    assert read_stamp(Path("memory:/b/none.png")) == ""


def test_addresses_in_lists_are_read_and_errors_are_the_images_own():
    Path("list.txt").write_text("memory://b/a.png\nmemory://b/none.png\nfile:///etc/x.png\nhttps://u:p@h/x.png\n")
    one, missing, unknown, secret = found("@list.txt")
    assert not one.error
    assert "nothing at this address" in missing.error
    assert "file:// are not read" in unknown.error
    assert "password" in secret.error


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("memory://none/*.png", "nothing at this address"),
        ("memory://b/*.gif", "there is no image at"),
        ("memory://b/s.tar", "archives and tables are read from local disks only"),
        ("memory://*/a.png", "bucket is to be named"),
        ("memory://b//a.png", "empty part"),
        ("memory://b/../a.png", "empty part"),
        ("file:///etc/passwd", "addresses of file:// are not read"),
        ("s4://b/a.png", "addresses of s4:// are not read"),
        ("https://host/*.png", "do not list"),
        ("memory://b/[z-a].png", "is not a pattern"),
    ],
)
def test_addresses_that_cannot_be_read_are_refused(given, says):
    with pytest.raises(RequestError, match=says):
        found(given)


def test_the_query_of_an_address_is_not_in_the_name(monkeypatch):
    monkeypatch.setattr(fsspec, "filesystem", lambda _scheme: None)
    first, second = found("https://host/a.png?id=1", "https://host/a.png?id=2")
    assert first.name != second.name
    assert first.name.startswith("%https/host/a~")
    assert first.name.endswith(".png")


class StatusError(Exception):
    status = 403


@pytest.mark.parametrize(
    ("raised", "tries", "says"),
    [
        (TimeoutError("slow"), 3, "cannot be read: slow"),
        (PermissionError("Access Denied"), 1, "no permission: Access Denied"),
        (StatusError("Forbidden"), 1, "no permission"),
        (type("NoCredentialsError", (Exception,), {})("none"), 1, "no credentials"),
        (FileNotFoundError("x"), 1, "is the bucket 'b' right"),
    ],
)
def test_what_may_pass_is_tried_again(monkeypatch, memory, raised, tries, says):
    asked = []

    def fail(*_args, **_options):
        asked.append(1)
        raise raised

    monkeypatch.setattr(type(memory), "open", fail)
    with pytest.raises(PictureError, match=says):
        decode(Path("memory:/b/a.png"))
    assert len(asked) == tries


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    def fail(_scheme):
        raise ImportError("Install s3fs")

    monkeypatch.setattr(fsspec, "filesystem", fail)
    with pytest.raises(RequestError) as caught:
        found("s3://bucket/a.png")
    assert caught.value.hint == "pip install 'camcli-vision[s3]'"


def test_an_endless_image_is_refused(monkeypatch):
    monkeypatch.setattr(remote, "MAX_BYTES", 10)
    with pytest.raises(PictureError, match="more than 10 bytes"):
        decode(Path("memory:/b/a.png"))
