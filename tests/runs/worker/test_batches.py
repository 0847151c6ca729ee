"""Batches of images: how large they are, and that an image that fails does so alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from readback import files, ledger
from shared import BLUE, GREEN, RED, Go, Paint

from camcli.images.source import PictureSource
from camcli.runs.job.job import Job
from camcli.runs.worker.worker import Worker


def test_bad_pictures_are_named_with_their_reason_and_the_good_ones_done(paint: Paint, go: Go, here: Path) -> None:
    paint("in/a.png")
    paint("in/z.png", BLUE)
    whole = (here / paint("cut.jpg", size=(400, 400))).read_bytes()
    (here / "in/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (here / "in/empty.jpg").write_bytes(b"")
    (here / "in/text.jpg").write_text("I am not an image")
    (here / "in/link.jpg").symlink_to("nowhere")
    outcomes = [one for (one,) in go("in")]
    errors = {one.name: one.error for one in outcomes if one.error}
    assert [one.name for one in outcomes if not one.error] == ["in/a.png", "in/z.png"]
    assert "cut short" in (errors["in/cut.jpg"] or "")
    assert "empty" in (errors["in/empty.jpg"] or "")
    assert "not an image" in (errors["in/text.jpg"] or "")
    assert "a link to a file that does not exist" in (errors["in/link.jpg"] or "")
    assert len(errors) == 4
    assert [row["error"] is None for row in ledger()].count(False) == 4
    # They are tried again; what is done is not.
    again = go("in")
    assert [bool(each) for each in again] == [bool(one.error) for one in outcomes]


def test_a_network_that_fails_on_one_picture_of_a_batch_fails_on_that_one_only(
    paint: Paint, tiny_file: Path, go: Go
) -> None:
    paint("in/a.png", RED)
    paint("in/b.png", (255, 255, 255))
    paint("in/c.png", GREEN)
    (a,), (b,), (c,) = go("in", model=f"{tiny_file}:moody", batch_size=3)
    assert (a.label, c.label) == ("red", "green")
    assert b.error == "the network fails on this image: too bright for me"


@pytest.mark.parametrize(
    ("threads", "method", "layers", "pictures"),
    [
        (2, "gradcam", (), 16),
        (2, "gradcam", ("layer4",), 16),
        (2, "gradcam", ("layer1", "layer4"), 8),
        (2, "gradcam,saliency", ("layer4",), 8),
        (2, "smoothgrad", (), 8),
        (1, "gradcam", ("layer1",), 16),
        (1, "saliency", (), 16),
    ],
)
def test_a_batch_on_a_cpu_is_large_unless_much_is_kept_of_each_picture(
    threads, method, layers, pictures, here: Path, monkeypatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    asked = {"model": "timm:test_resnet", "weights": "random", "device": "cpu", "method": method, "layers": layers}
    assert Worker(Job(**asked)).batch_size == pictures
    assert Worker(Job(**asked, batch_size=3)).batch_size == 3


def test_of_large_pictures_fewer_go_together(tiny: str, paint: Paint, monkeypatch) -> None:
    paint("a.png", size=(30, 20))
    Path("b.jpg").write_text("no image")
    sources = {name: [PictureSource(name, name)] for name in ("a.png", "b.jpg")}
    for pixels, name, pictures in ((6000, "a.png", 10), (500, "a.png", 1), (10**6, "a.png", 16), (500, "b.jpg", 16)):
        monkeypatch.setattr("camcli.runs.worker.resources.BATCH_PIXELS", pixels)
        job = Job(model=tiny, device="cpu")
        assert Worker(job, lambda name=name: iter(sources[name])).batch_size == pictures
        assert Worker(replace(job, batch_size=5), lambda name=name: iter(sources[name])).batch_size == 5


def test_batches_give_what_single_pictures_give(paint: Paint, go: Go) -> None:
    for number in range(7):
        paint(f"in/{number}.png", (30 * number, 200 - 20 * number, 90), box=(number, 0, 20, 20))
    for size in (1, 3, 8):
        go("in", batch_size=size, workers=2, save=("array",), target=("top:2",), out=f"out{size}")
    assert len(files("out1")) == 14
    for file in files("out1"):
        for other in ("out3", "out8"):
            np.testing.assert_allclose(np.load(f"{other}/{file}"), np.load(f"out1/{file}"), rtol=1e-6)


def test_a_file_that_cannot_be_written_fails_its_picture_only(paint: Paint, go: Go, here: Path) -> None:
    paint("in/a.png")
    paint("in/b.png")
    (here / "out/in/a.png.overlay.jpg/in the way").mkdir(parents=True)
    (a,), (b,) = go("in")
    assert a.error
    assert b.error is None
    assert not list((here / "out").rglob("*.tmp"))
