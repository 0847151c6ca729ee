"""What datasets tell about their images: files beside them in archives, as WebDataset has them."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from image_files import png

from camcli.base.errors import PictureError
from camcli.images.told import read_told_classes

pytestmark = pytest.mark.usefixtures("here")

SAMPLES = {
    "a/cat.jpg": png(),
    "a/cat.cls": b"3\n",
    "a/cat.json": b'{"label": "ant", "all": [1, "bee"], "float": 2.0, "none": null, "minus": -1, "odd": {}}',
    "a/cat.txt": "\ufeffant, black\n".encode(),
    "a/cat.seg.png": png(),
    "photo.1.jpg": png(),
    "photo.1.cls": b"4",
    "photo.cls": b"5",
    "bad.jpg": png(),
    "bad.json": b"{",
    "alone.jpg": png(),
}


@pytest.fixture
def shard(here):
    with tarfile.open("s.tar", "w") as file, zipfile.ZipFile("s.zip", "w", zipfile.ZIP_DEFLATED) as other:
        for name, content in SAMPLES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
            other.writestr(name, content)


@pytest.mark.usefixtures("shard")
@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(
    ("image", "name", "classes"),
    [
        ("a/cat.jpg", "", [3]),
        ("a/cat.jpg", "cls", [3]),
        ("a/cat.seg.png", "", [3]),
        ("photo.1.jpg", "", [4]),
        ("a/cat.jpg", "txt", ["ant, black"]),
        ("a/cat.jpg", "label", ["ant"]),
        ("a/cat.jpg", "all", [1, "bee"]),
        ("a/cat.jpg", "float", [2]),
    ],
)
def test_files_beside_an_image_in_an_archive_tell_its_class(kind, image, name, classes):
    told = read_told_classes(Path(f"s.{kind}", image), name)
    assert [one.name or one.number for one in told] == classes


@pytest.mark.usefixtures("shard")
@pytest.mark.parametrize(
    ("image", "name", "says"),
    [
        ("s.tar/alone.jpg", "", r"has no \.cls file"),
        ("s.tar/alone.jpg", "label", r"has no \.json file"),
        ("s.tar/a/cat.jpg", "lable", "has no 'lable'"),
        ("s.tar/a/cat.jpg", "none", "gives it no none: None"),
        ("s.tar/a/cat.jpg", "minus", "gives it no minus: -1"),
        ("s.tar/a/cat.jpg", "odd", "is no class"),
        ("s.tar/bad.jpg", "label", r"\.json file beside it cannot be read"),
        ("cat.jpg", "", "is in no dataset"),
    ],
)
def test_what_is_not_told_fails_the_image_with_the_reason(image, name, says):
    with pytest.raises(PictureError, match=says):
        read_told_classes(Path(image), name)
