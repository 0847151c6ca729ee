"""From which folder pictures are named, by the inputs of a run."""

import pytest

from camcli.images.find import find
from camcli.images.pages import expand_pages
from camcli.images.roots import Roots


@pytest.fixture
def trees(here, tmp_path):
    for name in (
        "here/in/x.png",
        "here/photos/x.png",
        "data/a/x.png",
        "data/a/y.png",
        "data/b/x.png",
        "data/photos/x.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (here / "list.txt").write_text(f"in/x.png\n{tmp_path}/data/a/x.png\n")
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["in"], ["in/x.png"]),
        (["{}/here/in"], ["in/x.png"]),
        (["{}/data/photos"], ["photos/x.png"]),
        (["../data/photos"], ["photos/x.png"]),
        (["{}/data/a/x.png", "{}/data/b/x.png"], ["a/x.png", "b/x.png"]),
        (["{}/data/a/x.png", "{}/data/a/y.png"], ["x.png", "y.png"]),
        (["{}/data/a/*.png"], ["x.png", "y.png"]),
        (["{}/data/*/x.png"], ["a/x.png", "b/x.png", "photos/x.png"]),
        (["in", "{}/data/b"], ["in/x.png", "data/b/x.png"]),
        # What lies inside keeps its name, and what lies outside never takes it.
        (["photos", "{}/data/photos"], ["photos/x.png", "data/photos/x.png"]),
        (["@list.txt"], ["in/x.png", "a/x.png"]),
        ([".."], ["data/a/x.png", "data/a/y.png", "data/b/x.png", "data/photos/x.png", "here/in/x.png"]),
    ],
)
def test_pictures_outside_the_current_folder_are_named_from_their_common_parent(trees, here, inputs, names):
    found = [*find([given.format(trees) for given in inputs], out=here / "out")]
    ending = [source.name for source in found]
    if inputs == [".."]:
        ending = [name.removeprefix(f"{trees.name}/") for name in ending][: len(names)]
    assert ending == names
    assert all((trees / source.root / source.name).is_file() for source in expand_pages(found, "first"))


def test_names_on_standard_input_are_whole_paths_outside(trees, here):
    roots = Roots.choose(["-"], str(here))
    assert roots.name("in/x.png") == ("in/x.png", str(here))
    assert roots.name(f"{trees}/data/a/x.png") == (f"{trees}/data/a/x.png"[1:], "/")
    (here / trees.parts[1]).mkdir()  # by now such a name could be that of a picture inside
    assert roots.name(f"{trees}/data/a/x.png")[0] == f"%root{trees}/data/a/x.png"
