"""One box of an image: by its rank, or the candidate that lies on a true box, found or missed; from the shell."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli import Job, RequestError
from camcli.runs.explain.run import Run
from camcli.runs.record.outcome import Counts

# Candidates are the four quarters of the image; their logits are the colours' means; kept are those above 0.6.
SCRIPT = """
import torch
from torch import nn
import camcli

class Quarters(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.dirac_(self.layer.weight)
        self.score_thresh = 0.6

    def forward(self, x):
        return [self.find(cells.flatten(1).T, x.shape[3]) for cells in nn.functional.avg_pool2d(self.layer(x), 8)]

    def find(self, logits, size):
        h = size / 2
        boxes = logits.new_tensor([[0, 0, h, h], [h, 0, size, h], [0, h, h, size], [h, h, size, size]])
        scores, labels = logits.sigmoid().max(1)
        kept = torch.nonzero(scores > self.score_thresh)[:, 0]
        candidates = {"boxes": boxes, "logits": logits, "kept": kept, "activation": "sigmoid"}
        found = {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}
        return found | ({"candidates": candidates} if CANDIDATES else {})

CANDIDATES = True

def detector():
    prepare = camcli.Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3, (16, 16), "longer", "nearest")
    spec = camcli.OutputSpec("detect")
    labels = camcli.Labels(("red", "green", "blue"))
    return camcli.Network("q", Quarters(), prepare, labels, "pretrained", "own", activation="sigmoid", output_spec=spec)
"""


@pytest.fixture
def scene(here: Path) -> Path:
    """A wide image, which is padded above and below: red left, weaker red right, faint blue in both."""
    (here / "d.py").write_text(SCRIPT)
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = (255, 0, 51), (230, 0, 26)
    Image.fromarray(pixels).save(here / "a.png")
    return here


def outcomes(**options):
    job = {"inputs": ("a.png",), "out": "out", "device": "cpu", "layers": ("layer",), "layout": "nchw", **options}
    with Run(Job(model="d.py:detector", method="hirescam", save=("array",), **job)) as run:
        return [one for some in run for one in some]


def test_a_box_is_named_by_its_rank(scene):
    # The image is at rows 4 to 12 of the input, and fills half of each quarter.
    every = outcomes()
    assert len(every) == 4
    [third] = outcomes(target=("box:3",), out="third")
    assert (third.number, third.box) == (3, (32, 0, 64, 16))
    [best] = outcomes(target=("box:2:red",), out="red")
    assert (best.number, best.label, best.box) == (2, "red", (0, 16, 32, 32))
    several = outcomes(target=("box:1", "red", "box:2"), out="several")
    assert [one.number for one in several] == [1, 1, 2, 3, 4, 2]


def test_what_is_no_box_is_an_error(scene):
    [one] = outcomes(target=("box:9",))
    assert "finds 4 boxes" in one.error
    [one] = outcomes(target=("box:1:blue",), out="blue")
    assert "finds 0 boxes of class 2" in one.error
    for word in ("box:", "box:0", "box:x"):
        with pytest.raises(RequestError, match="no number of a box"):
            outcomes(target=(word,), out="bad")
    with pytest.raises(RequestError, match="a box, and bundled"):
        Run(Job(inputs=("a.png",), target=("box:1",), out="bad", device="cpu"))


def test_a_missed_object_is_explained_by_what_was_considered_there(scene):
    Path("boxes.csv").write_text(
        "image,x0,y0,x1,y1,label\na.png,0,-16,32,16,blue\na.png,0,0,32,16,red\na.png,20,4,60,30,red\n"
    )
    missed, half, nowhere = outcomes(true_boxes="boxes.csv")
    # The upper left quarter of the input is an image from 16 rows above it on.
    assert (missed.label, missed.number, missed.box) == ("blue", 1, (0, 0, 32, 16))
    assert missed.true_box == (0, 0, 32, 16)  # the part of it in the image
    assert missed.score == pytest.approx(0.1)
    assert missed.probability == pytest.approx(1 / (1 + np.exp(-0.1)))
    assert "IoU 1.00" in missed.notes[0]
    assert "was dropped for a better box that overlaps, with the probability 0.52" in missed.notes[0]
    assert (half.label, half.score) == ("red", pytest.approx(0.5))
    assert "IoU 0.50" in half.notes[0]
    assert "is found" in half.notes[0]
    assert "best overlap (IoU) is" in nowhere.error
    assert "true box 3" in nowhere.error
    assert "of a candidate with the probability 0.61 for red" in nowhere.error
    [weak] = [one for one in outcomes(true_boxes="boxes.csv", min_score=0.6, out="strict") if one.label == "blue"]
    assert "was dropped: its probability is 0.52, below --min-score 0.6" in weak.notes[0]
    explained = json.loads(Path("out/run.json").read_text())["explained"]
    assert explained.startswith("the class logit (before sigmoid) of each box")


def test_without_candidates_only_boxes_found_can_be_matched(scene):
    Path("d.py").write_text(SCRIPT.replace("CANDIDATES = True", "CANDIDATES = False"))
    Path("boxes.csv").write_text("image,x0,y0,x1,y1,label\na.png,0,-16,32,16,red\na.png,0,-16,32,16,blue\n")
    found, missed = outcomes(true_boxes="boxes.csv")
    assert found.score == found.probability == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert "best overlap (IoU) is" in missed.error


def test_boxes_that_cannot_be_explained_are_refused(scene):
    Path("boxes.csv").write_text("image,x0,y0,x1,y1\nother.png,0,0,1,1\n")
    with pytest.raises(RequestError, match=r"of no image that is there: it names other\.png"):
        outcomes(true_boxes="boxes.csv")
    (scene / "other.png").write_bytes((scene / "a.png").read_bytes())
    Path("boxes.csv").write_text("image,x0,y0,x1,y1\nother.png,0,0,1,1\nmore.png,0,0,1,1\n")
    [one] = outcomes(true_boxes="boxes.csv")
    assert "has no box of it" in one.error
    assert (
        json.loads(Path("out/run.json").read_text())["notes"][-1] == "boxes.csv names what is no image here: more.png"
    )
    with pytest.raises(RequestError, match="a target was given too"):
        outcomes(true_boxes="boxes.csv", target=("red",))
    with pytest.raises(RequestError, match="finds no boxes, so --boxes"):
        Run(Job(inputs=("a.png",), true_boxes="boxes.csv", out="c", device="cpu"))
    with pytest.raises(RequestError, match=r"boxes file 'none.csv' cannot be read"):
        outcomes(true_boxes="none.csv", out="d")


def test_an_image_with_a_box_that_is_nowhere_has_failed_in_part(scene):
    Path("boxes.csv").write_text("image,x0,y0,x1,y1,label\na.png,0,0,32,16,red\na.png,20,4,60,30,red\n")
    job = Job(inputs=("a.png",), out="out", device="cpu", layers=("layer",), layout="nchw", true_boxes="boxes.csv")
    counts = Counts()
    with Run(replace(job, model="d.py:detector", method="hirescam", save=("array",))) as run:
        for some in run:
            counts.add(some)
    assert counts.describe() == ["0 done", "1 failed (1 in part)"]
    assert counts.exit_code == 1
