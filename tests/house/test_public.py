"""The public names of the package: what they need, what they give, and that there are no others."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from shared import BLUE, GREEN, RED, Paint

import camcli
from camcli.base.errors import PictureError, RequestError

HEAVY = {"torch", "torchvision", "timm", "open_clip", "cv2", "numpy", "PIL", "rich", "typer"}


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after this code."""
    told = "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code + told], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_camcli_brings_nothing_heavy() -> None:
    loaded = modules_after("import camcli; camcli.__version__; dir(camcli)")
    assert "camcli" in loaded
    assert loaded & HEAVY == set()


def test_the_errors_can_be_had_without_torch() -> None:
    assert "torch" not in modules_after("from camcli import CamcliError, PictureError, Job")


def test_every_public_name_is_there_and_nothing_else() -> None:
    for name in camcli.__all__:
        assert getattr(camcli, name).__name__ == name
        assert name in dir(camcli)
    with pytest.raises(AttributeError, match="'camcli' has no attribute 'explian'"):
        camcli.explian  # noqa: B018  the access is what is tested


def test_explanations_come_lazily_picture_by_picture(paint: Paint, tiny: str) -> None:
    paths = [paint(f"{number}.png", (200, number, 0)) for number in range(40)]
    drawn = []

    def names():
        for path in paths:
            drawn.append(path)
            yield path

    explanations = camcli.explain(names(), model=tiny, batch_size=2, workers=1)
    assert iter(explanations) is explanations
    assert drawn == []
    first = next(explanations)
    assert first.source == "0.png"
    assert len(drawn) < 10
    explanations.close()
    assert len(drawn) < 10


def test_an_explanation_holds_map_class_and_view(paint: Paint, tiny: str) -> None:
    paint("a.png", RED, box=(32, 0, 64, 64), size=(64, 64))
    (one,) = camcli.explain("a.png", model=tiny, layer="stem", target="red")
    assert (one.source, one.index, one.label, one.layer, one.method) == ("a.png", 0, "red", "stem", "gradcam")
    assert one.score == pytest.approx(10 * 0.5 * 250 / 255)
    np.testing.assert_allclose(one.map[:, 8:], 10 / 256 * 250 / 255, rtol=1e-6)
    assert not one.map[:, :8].any()
    onto = one.view.onto_picture(one.map)
    assert onto.shape == (64, 64)
    assert (onto[:, 40:] > 0.03).all()
    assert not onto[:, :24].any()


def test_class_by_class_layer_by_layer(paint: Paint, tiny: str) -> None:
    paint("a.png", (200, 100, 50))
    found = camcli.explain("a.png", model=tiny, layer=["stem", "body"], target=["blue", 0])
    assert [(one.label, one.layer) for one in found] == [
        ("blue", "stem"),
        ("blue", "body"),
        ("red", "stem"),
        ("red", "body"),
    ]


def test_names_folders_globs_paths_and_pictures_in_one_call(paint: Paint, tiny: str) -> None:
    paint("in/a.png", RED)
    paint("in/b.jpg", GREEN)
    path = paint("c.png", BLUE)
    picture = Image.new("RGB", (20, 10), GREEN)
    found = list(camcli.explain(["in", path, picture, "i*/*.jpg"], model=tiny))
    assert [(one.source, one.label) for one in found] == [
        ("in/a.png", "red"),
        ("in/b.jpg", "green"),
        ("c.png", "blue"),
        ("image-2", "green"),
        ("in/b.jpg", "green"),
    ]
    assert found[3].view.picture == (10, 20)


def test_a_picture_in_memory_gives_what_its_file_gives(here, tiny: str) -> None:
    # Transparent, so that the background shows; 16 bits deep; and lying on its side, as cameras write them.
    clear = Image.new("RGBA", (32, 32), (250, 0, 0, 0))
    clear.paste((250, 0, 0, 255), (0, 0, 32, 8))
    deep = Image.fromarray(np.full((32, 32), 30000, np.uint16))
    lying = Image.new("RGB", (32, 16), BLUE)
    lying.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    clear.save("clear.png")
    deep.save("deep.png")
    lying.save("lying.png", exif=exif)
    for name in ("clear.png", "deep.png", "lying.png"):
        with Image.open(name) as picture:
            (one,) = camcli.explain(picture, model=tiny, layer="stem", target="red", background="#000000")
        (other,) = camcli.explain(name, model=tiny, layer="stem", target="red", background="#000000")
        np.testing.assert_array_equal(one.map, other.map, err_msg=name)
        assert one.view == other.view


def test_an_error_of_a_picture_is_raised_with_its_name(paint: Paint, here, tiny: str) -> None:
    paint("a.png")
    (here / "b.png").write_bytes(b"")
    paint("c.png")
    explanations = camcli.explain(".", model=tiny)
    assert next(explanations).source == "a.png"
    with pytest.raises(PictureError, match=r"^b\.png: the file is empty"):
        next(explanations)


def test_on_error_is_told_and_the_rest_is_done(paint: Paint, here, tiny: str) -> None:
    paint("a.png")
    (here / "b.png").write_bytes(b"")
    paint("c.png", BLUE)
    told = []
    found = camcli.explain(".", model=tiny, target="red", on_error=lambda name, error: told.append((name, error)))
    assert [one.source for one in found] == ["a.png"]
    assert [name for name, _ in told] == ["b.png", "c.png"]
    assert told[0][1].message == "the file is empty"
    assert "zero everywhere" in told[1][1].message  # no red in blue


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"modle": "x"}, "there is no option 'modle'", "'model'"),
        ({"inputs": ["x"]}, "there is no option 'inputs'", ""),
        ({"method": "gradcm"}, "there is no method 'gradcm'", "'gradcam'"),
        ({"target": "purple"}, "there is no class 'purple'", ""),
        ({"layer": "stm"}, "stm", "stem"),
        ({"target": "red", "targets": "t.csv"}, "targets", ""),
    ],
)
def test_a_wrong_option_is_refused_at_the_call(paint: Paint, here, tiny: str, options, message: str, hint: str) -> None:
    paint("a.png")
    (here / "t.csv").write_text("a.png,blue\n")
    with pytest.raises(RequestError) as caught:
        camcli.explain("a.png", **{"model": tiny, **options})
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_nothing_is_written(paint: Paint, here, tiny: str) -> None:
    paint("a.png")
    list(camcli.explain("a.png", model=tiny))
    assert [path.name for path in here.iterdir()] == ["a.png"]


def test_targets_of_a_file_are_found_below_every_folder_given(paint: Paint, here, tiny: str) -> None:
    paint("one/a.png", (200, 100, 50))
    paint("two/b.png", (200, 100, 50))
    (here / "t.csv").write_text("a.png,blue\nb.png,green\n")
    assert [one.label for one in camcli.explain(["one", "two"], model=tiny, targets="t.csv")] == ["blue", "green"]
