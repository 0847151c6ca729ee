"""Images in tar and zip archives are found, named and read in place, and nothing in an archive leads out of it."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_files import SMALL, png

from camcli.base.errors import PictureError, RequestError
from camcli.images import archives, braces
from camcli.images.decode import count_pixels, decode
from camcli.images.files import exists, read_stamp
from camcli.images.find import find
from camcli.images.formats import SkippedFiles
from camcli.images.pages import expand_pages

pytestmark = pytest.mark.usefixtures("here")


def pack(archive, *members):
    """Write an archive of members, each a name or a (name, content)."""
    named = [(one, png()) if isinstance(one, str) else one for one in members]
    if archive.endswith(".zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in named:
                file.writestr(name, content)
        return
    with tarfile.open(archive, "w") as file:
        for name, content in named:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def found(*inputs, **options):
    return list(find(inputs, out=Path("out"), **options))


def good(*inputs):
    return {one.name: str(one.path) for one in found(*inputs) if not one.error}


def errors(*inputs):
    return [one.error for one in found(*inputs) if one.error]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_the_images_of_an_archive_are_read_in_its_order(kind):
    other = np.zeros((6, 4, 3), np.uint8)
    pack(f"shard.{kind}", "b.png", ("b.cls", b"3"), ("./a/c.PNG", png(other)), ".hidden.png", "__MACOSX/._b.png", "a/")
    assert good(f"shard.{kind}") == {"shard/b.png": f"shard.{kind}/b.png", "shard/a/c.PNG": f"shard.{kind}/a/c.PNG"}
    first, second = (source.path for source in found(f"shard.{kind}"))
    assert (np.asarray(decode(first)) == SMALL).all()
    assert (np.asarray(decode(second)) == other).all()
    assert count_pixels(second) == 24
    assert exists(first)
    assert read_stamp(first) != read_stamp(second)
    assert read_stamp(f".//shard.{kind}/./b.png") == read_stamp(f"shard.{kind}/b.png") == read_stamp(first) != ""
    assert [one.page for one in expand_pages(found(f"shard.{kind}"), "all")] == [0, 0]
    before = read_stamp(first)
    os.utime(f"shard.{kind}", (1, 1))
    assert read_stamp(first) != before


def test_archives_are_named_by_patterns_braces_and_lists():
    for number in range(9, 12):
        pack(f"s-{number:03}.tar", f"{number}.png")
    pack("z.zip", "z.png")
    Path("list.txt").write_text("s-010.tar\nz.zip/z.png\nz.zip/none.png\n")
    tens = ["s-009/9.png", "s-010/10.png", "s-011/11.png"]
    assert list(good("s-*.tar")) == list(good("s-{009..011}.tar")) == tens
    assert list(good("{z.zip,s-011.tar}")) == ["z/z.png", "s-011/11.png"]
    assert list(good("@list.txt")) == ["s-010/10.png", "z/z.png", "z/none.png"]
    assert list(good("z.zip/z.png", "z.zip")) == ["z/z.png"]
    with pytest.raises(PictureError, match="no such file in the archive"):
        decode(Path("z.zip/none.png"))
    assert not exists(Path("z.zip/none.png"))


def test_archives_outside_are_named_from_their_common_parent(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        pack(str(tmp_path / "data" / name / "x.tar"), "1.png")
    assert list(good(f"{tmp_path}/data/*/x.tar")) == ["a/x/1.png", "b/x/1.png"]
    assert list(good(f"{tmp_path}/data/a/x.tar/1.png")) == ["x/1.png"]


def test_two_images_never_share_a_name():
    pack("p.tar", "1.png")
    pack("p.zip", "1.png")
    pack("q.TAR", "1.png")
    pack("r.tar", "1.png", "1.png")
    Path("s").mkdir()
    pack("s.zip", "1.png")
    Path("s/1.png").write_bytes(png())
    assert list(good("p.tar", "p.zip", "q.TAR", "s", "s.zip")) == [
        *("p.tar/1.png", "p.zip/1.png", "q.TAR/1.png", "s/1.png", "s.zip/1.png")
    ]
    skipped = SkippedFiles()
    assert len(found("r.tar", skipped=skipped)) == 1
    assert skipped.duplicates == 1


def test_an_archive_in_a_folder_is_counted_and_not_read():
    Path("p").mkdir()
    pack("p/a.tar", "1.png")
    Path("p/1.png").write_bytes(png())
    skipped = SkippedFiles()
    assert [one.name for one in found("p", skipped=skipped)] == ["p/1.png"]
    assert "1 archive in folders is not read" in skipped.describe()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../../x.png"])
def test_a_name_that_leads_out_of_the_archive_is_refused(kind, name):
    pack(f"x.{kind}", name, "ok.png")
    (bad,) = (one for one in found(f"x.{kind}") if one.error)
    assert "leads out of the archive" in bad.error
    assert bad.name == "x/refused 1"
    assert list(good(f"x.{kind}")) == ["x/ok.png"]


def test_links_and_devices_are_refused():
    with tarfile.open("x.tar", "w") as file:
        for name, kind in (("s.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
    with zipfile.ZipFile("y.zip", "w") as file:
        info = zipfile.ZipInfo("s.png")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    assert [("link" in one, "device" in one) for one in errors("x.tar")] == [(True, False)] * 2 + [(False, True)]
    assert "links in archives are never followed" in errors("y.zip")[0]
    assert not good("x.tar", "y.zip")


def test_a_zip_that_claims_too_much_is_refused():
    with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(1 << 16))
        file.writestr("b.png", b"x", compress_type=zipfile.ZIP_BZIP2)
    raw = bytearray(Path("bomb.zip").read_bytes())
    place = raw.index(b"PK\1\2")
    assert "method 12" in errors("bomb.zip")[0]
    for size, says in ((100, "checksum"), (1 << 17, "cut short"), (2**31, "more than")):
        raw[place + 24 : place + 28] = size.to_bytes(4, "little")
        Path("bomb.zip").write_bytes(raw)
        os.utime("bomb.zip", (size, size))
        if size == 2**31:
            assert says in errors("bomb.zip")[0]
        else:
            with pytest.raises(PictureError, match=says):
                decode(Path("bomb.zip/a.png"))


def test_a_damaged_tar_gives_what_is_before_the_damage_and_says_so():
    pack("x.tar", "a.png", "b.png", "c.png")
    whole = Path("x.tar").read_bytes()
    second = whole.index(b"b.png")
    for content, says in ((whole[: second + 700], "cut short"), (whole[: second + 100], "after 1 files")):
        Path("x.tar").write_bytes(content)
        assert says in errors("x.tar")[0]
        assert "x/a.png" in good("x.tar")
    Path("x.tar").write_bytes(whole[:second] + b"?" * 512 + whole[second + 512 :])
    assert "damaged or cut short after 1 files" in errors("x.tar")[0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.tar", b"no tar" * 200, "is not a tar archive"),
        ("x.zip", b"no zip", "is not a zip archive"),
        ("x.tar.gz", b"", "compressed tar"),
        ("x.tgz", b"", "compressed tar"),
    ],
)
def test_what_is_no_archive_is_refused_with_the_reason(name, content, says):
    Path(name).write_bytes(content)
    with pytest.raises(RequestError, match=says):
        found(name)
    Path("list.txt").write_text(name)
    assert says in errors("@list.txt")[0]


def test_the_members_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(archives, "MAX_REMEMBERED", 3)
    pack("a.tar", "1.png", "2.png")
    pack("b.tar", "1.png", "2.png")
    before = archives.read_contents("a.tar")
    assert archives.read_contents("a.tar") is before
    archives.read_contents("b.tar")
    assert archives.read_contents("a.tar") is not before
    assert exists(Path("a.tar/2.png"))


# --- braces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("s-{008..010}", ["s-008", "s-009", "s-010"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{2..1}{a,b}", ["2a", "2b", "1a", "1b"]),
        ("{x}", ["{x}"]),
        ("@{1,2}", ["@{1,2}"]),
    ],
)
def test_braces_are_expanded(given, names):
    assert braces.expand_braces([given]) == names


def test_braces_are_left_in_names_of_files_and_are_bounded(monkeypatch):
    monkeypatch.setattr(braces, "MAX_NAMES", 100)
    Path("{1,2}").write_bytes(png())
    assert braces.expand_braces(["{1,2}"]) == ["{1,2}"]
    with pytest.raises(RequestError, match="more than 100 names"):
        braces.expand_braces(["{0..99999999}"])
