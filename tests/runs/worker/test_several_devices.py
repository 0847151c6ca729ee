"""Several devices: the same files as with one, and what one copy's failure means."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from copies import ON_A_GPU
from group_model import MEAN
from prompt_runs import SAY
from readback import facts, files, ledger
from shared import BLUE, GREEN, RED, Go, Paint
from typer.testing import CliRunner

import camcli
from camcli import Job
from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.runs.explain.run import Run


@pytest.fixture
def nine(paint: Paint) -> None:
    """Nine images below ``in``, all different, one of them broken."""
    for number in range(8):
        colour = [(250, 10 * number, 0), (0, 250, 10 * number), (10 * number, 0, 250)][number % 3]
        paint(f"in/{number}.png", colour, box=(number, 4, number + 16, 20), ground=(40, 10, 90))
    Path("in/broken.png").write_text("no image")


def said(out: str) -> list[dict]:
    """The ledger without what no two runs have in common."""
    rows = ledger(out)
    for row in rows:
        del row["run"], row["seconds"]
    return rows


@pytest.mark.usefixtures("nine")
@pytest.mark.parametrize(
    "options",
    [
        {"layers": ("stem", "body"), "target": ("top:2",)},
        {"method": "gradcam,layercam,scorecam,saliency", "layers": ("stem",), "batch_size": 2},
        {"method": "dff", "options": ("concepts=3", "iterations=20"), "layers": ("stem",)},
        {"method": "dff", "options": ("concepts=2", "over=picture", "iterations=20"), "layers": ("stem",)},
        {"target": ("channels:top:2",), "layers": ("stem",)},
        {"precision": "bf16", "layers": ("stem",)},
        {"normalize": "run", "save": ("array", "heatmap"), "layers": ("stem",)},
        {"recompute": True, "layers": ("stem",)},
        {"score": "margin", "counterfactual": True, "layers": ("stem",), "batch_size": 3},
    ],
    ids=lambda options: "-".join(options),
)
def test_the_files_are_those_of_one_device(go: Go, options: dict) -> None:
    given = {"batch_size": 1, "save": ("array", "overlay-png"), **options}
    go("in", **given, out="one")
    go("in", **given, out="two", device="cpu,cpu")
    assert said("one") == said("two")
    assert facts("one")["fingerprint"] == facts("two")["fingerprint"]
    assert files("one") == files("two")
    for name in files("one"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes(), name


@pytest.mark.usefixtures("nine")
def test_groups_stay_together(go: Go) -> None:
    Path("in/broken.png").unlink()
    Path("wrap.py").write_text(MEAN)
    given = {"wrap": "wrap.py:Mean", "group": "2", "layers": ("stem",), "target": ("red",), "save": ("array",)}
    go("in", **given, out="one")
    go("in", **given, out="three", device="cpu,cpu,cpu")
    assert said("one") == said("three")
    for name in files("one"):
        assert Path("one", name).read_bytes() == Path("three", name).read_bytes(), name


@pytest.mark.usefixtures("nine")
def test_another_number_of_devices_is_the_same_job(go: Go) -> None:
    go("in/0.png", "in/1.png", layers=("stem",))
    assert facts()["device"] == "cpu"
    again = go("in", layers=("stem",), device="cpu,cpu")
    assert [bool(some) for some in again] == [False, False, *[True] * 7]
    assert facts()["device"] == "cpu,cpu"


@pytest.mark.usefixtures("nine")
def test_the_stream_in_python(tiny: str) -> None:
    given = {"model": tiny, "layer": "stem", "batch_size": 2, "on_error": lambda name, error: None}
    one = list(camcli.explain("in", **given, device="cpu"))
    two = list(camcli.explain("in", **given, device=["cpu", "cpu"]))
    assert len(one) == len(two) == 8
    for this, that in zip(one, two, strict=True):
        assert np.array_equal(this.map, that.map)
        assert this.source == that.source


@pytest.mark.usefixtures("nine")
def test_the_channels_are_those_of_one_device(tiny: str) -> None:
    for device, out in (("cpu", "one"), ("cpu,cpu", "two")):
        words = ["channels", tiny, "in", "--layer", "stem", "--out", out, "--batch-size", "1", "--device", device]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 1, done.output  # one image is broken
        assert f"on {device.replace(',', ', ')}" in done.stderr
    for name in ("channels.csv", "channels.png"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


@pytest.mark.usefixtures("nine")
def test_the_prompts_are_those_of_one_device(clip: str) -> None:
    Path("in/broken.png").unlink()
    rows = {}
    for device in ("cpu", "cpu,cpu"):
        words = ["-m", clip, *SAY, "in", "--out", device, "--batch-size", "1", "--device", device, "--save", "array"]
        done = CliRunner().invoke(app, ["prompts", *words])
        assert done.exit_code == 0, done.output
        rows[device] = [json.loads(line) for line in Path(device, "prompts.jsonl").read_text().splitlines()]
        for row in rows[device]:
            del row["run"], row["seconds"]
    assert rows["cpu"] == rows["cpu,cpu"]


# ---- errors, notes, interrupts


def test_a_batch_that_fails_on_one_copy_is_done_picture_by_picture_with_one_note(
    paint: Paint, go: Go, tiny_file: Path
) -> None:
    for number in range(12):
        paint(f"in/{number:02}.png", (255, 255, 255) if number % 4 == 1 else (200, number, 0))
    ledgers = []
    for device in ("cpu", "cpu,cpu"):
        job = Job(model=f"{tiny_file}:moody", inputs=("in",), out=device, device=device, batch_size=2, layers=("stem",))
        with Run(job) as run:
            outcomes = [one for [one] in run]
        assert [bool(one.error) for one in outcomes] == [number % 4 == 1 for number in range(12)]
        assert run.notes.count("a batch failed and was processed image by image: too bright for me") == 1
        ledgers.append(said(device))
    assert ledgers[0] == ledgers[1]


@pytest.mark.usefixtures("nine")
def test_what_a_copy_cannot_do_is_each_pictures_failure(go: Go, bring) -> None:
    def fussy(act, grad):
        if threading.current_thread() is not threading.main_thread():
            raise RequestError("no map of these", "choose another method")
        return (act * grad).sum(1)

    outcomes = go("in", method=bring(fussy), layers=("stem",), device="cpu,cpu", batch_size=1)
    *drawn, [broken] = [[one.error for one in some] for some in outcomes]
    assert drawn == [["no map of these (choose another method)"]] * 8
    assert "is not an image" in broken
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spread")]


@pytest.mark.usefixtures("nine")
def test_interrupted_and_resumed(go: Go, tiny: str) -> None:
    job = Job(model=tiny, inputs=("in",), out="out", batch_size=1, workers=1, device="cpu,cpu")
    with Run(job) as run:
        outcomes = iter(run)
        done = [next(outcomes), next(outcomes)]
        with pytest.raises(KeyboardInterrupt):
            outcomes.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spread")]
    assert [row["name"] for row in ledger()] == [one.name for some in done for one in some]
    assert len(go("in")) == 9
    assert sorted(row["name"] for row in ledger()) == sorted([*(f"in/{n}.png" for n in range(8)), "in/broken.png"])


def test_pictures_are_decoded_no_further_ahead_than_two_batches_a_device(paint: Paint, tiny: str) -> None:
    from camcli.images.source import PictureSource
    from camcli.runs.worker.item import Item
    from camcli.runs.worker.pipeline import stream_results
    from camcli.runs.worker.worker import Worker

    source = paint("a.png", RED)
    drawn: list[int] = []

    def items():
        for number in range(200):
            drawn.append(number)
            yield Item(PictureSource(str(source), f"{number}.png"))

    worker = Worker(Job(model=tiny, batch_size=4, workers=1, device="cpu,cpu", layers=("stem",)))
    given = stream_results(worker, items())
    next(given)
    # Four batches at work or waiting, one that was handed over, and what is decoded ahead.
    assert len(drawn) <= 4 * (2 * 2 + 1) + 4 + 1
    given.close()


def test_nothing_is_compiled_for_several_devices(paint: Paint, go: Go, tiny: str) -> None:
    paint("a.png", GREEN)
    go("a.png", compile="on", device="cpu,cpu", layers=("stem",))
    assert any("nothing is compiled: whether it pays is measured on one device" in one for one in facts()["notes"])


ODD = """
from camcli import Labels, Preprocess
import copies


def make():
    prepare = Preprocess(size=(16, 16), mean=(0.0,) * 3, std=(1.0,) * 3, resize=(16, 16), fit="squash")
    return copies.Uncopied().float(), prepare, Labels(("a", "b", "c", "d"))
"""


def test_a_network_that_cannot_be_copied_works_on_one_device(paint: Paint) -> None:
    paint("a.png", BLUE)
    Path("odd.py").write_text(ODD)
    job = Job(model="odd.py:make", inputs=("a.png",), out="out", layers=("conv2",), device="cpu")
    with Run(job) as run:
        assert len(list(run)) == 1
    with pytest.raises(RequestError, match="cannot be copied to cpu: I am one of a kind") as caught:
        Run(replace(job, device="cpu,cpu"))
    assert "name one device" in caught.value.hint


def test_a_list_of_devices_that_go_not_together_is_refused_before_the_model_is_loaded(paint: Paint) -> None:
    paint("a.png")
    done = CliRunner().invoke(app, ["explain", "-m", "no-such-model", "a.png", "--device", "auto,cpu"])
    assert done.exit_code == 2
    assert "combines auto" in done.stderr


@pytest.mark.gpu
@ON_A_GPU
@pytest.mark.usefixtures("nine")
def test_copies_on_gpus_give_what_one_gives(go: Go) -> None:
    given = {"save": ("array",), "layers": ("stem",), "batch_size": 1}
    several = "cuda:all" if torch.cuda.device_count() > 1 else "cuda:0,cuda:0"
    go("in", **given, out="one", device="cuda:0")
    go("in", **given, out="two", device=several)
    for name in files("one"):
        np.testing.assert_allclose(np.load(Path("one", name)), np.load(Path("two", name)), rtol=1e-5)
