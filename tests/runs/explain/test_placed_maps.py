"""A run draws and records where a layer looks, and so does Python."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import camcli
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job

NETWORK = """
import torch
from torch import nn
from camcli import Labels, Network, Preprocess

def make():
    convs = [nn.Conv2d(3 if turn == 0 else 4, 4, 3, 2, 1, bias=False) for turn in range(3)]
    for conv in convs:
        nn.init.constant_(conv.weight, 1 / 9)
    module = nn.Sequential(nn.Sequential(*convs), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    prepare = Preprocess((48, 48), (0.0,) * 3, (1.0,) * 3, (48, 48), "squash", "bilinear")
    return Network("planted", module, prepare, Labels(("a", "b", "c", "d")), weights="pretrained", origin="made")
"""


def planted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK)
    for name, (x, y) in {"a.png": (16, 24), "b.png": (32, 16)}.items():
        pixels = np.zeros((96, 96, 3), np.uint8)
        pixels[2 * y - 5 : 2 * y + 7, 2 * x - 5 : 2 * x + 7] = 255
        Image.fromarray(pixels).save(name)


def ran(**more):
    with Run(Job(model="net.py:make", inputs=("a.png", "b.png"), layers=("0",), target=("0",), **more)) as run:
        return [one for outcomes in run for one in outcomes]


def test_a_run_draws_and_records_where_the_layer_looks(tmp_path, monkeypatch):
    planted(tmp_path, monkeypatch)
    first, second = ran(out="own", save=("overlay-png", "array"))
    # Cells at 0.5 + 8 j of 48 pixels, in images of twice that.
    assert first.peak == pytest.approx((33, 49), abs=2)
    assert second.peak == pytest.approx((65, 33), abs=2)
    assert first.placement == pytest.approx((0.5, 0.5, 8, 8), abs=1)
    fact = json.loads(Path("own/run.json").read_text())["placement"]["0"]
    assert (fact["cells"], fact["stride"]) == ([6, 6], [8, 8])
    assert fact["first"] == list(first.placement[:2]) == [4 - offset for offset in fact["offset"]]
    first, second = ran(out="even", save=("overlay-png", "array"), placement="even")
    assert (first.peak, second.peak) == ((40, 56), (72, 40))
    assert first.placement is None
    assert json.loads(Path("even/run.json").read_text())["placement"] == {}
    assert np.array_equal(np.load("own/a.png.npy"), np.load("even/a.png.npy"))


def test_drawn_after_the_last_picture_a_map_lies_where_it_did(tmp_path, monkeypatch):
    planted(tmp_path, monkeypatch)
    ran(out="image", save=("heatmap",))
    ran(out="run", save=("heatmap",), normalize="run")
    drawn = [np.asarray(Image.open(f"{folder}/a.png.heatmap.png")).astype(int) for folder in ("image", "run")]
    # The two images' maps are as strong, so one scale serves both.
    assert np.abs(drawn[0] - drawn[1]).max() <= 3


def test_in_python_the_view_brings_a_map_to_its_place(tmp_path, monkeypatch):
    planted(tmp_path, monkeypatch)
    [one] = camcli.explain("a.png", model="net.py:make", layer="0", target="0")
    onto = one.view.onto_picture(one.map)
    y, x = np.unravel_index(onto.argmax(), onto.shape)
    assert (x + 0.5, y + 0.5) == pytest.approx((33, 49), abs=1)
