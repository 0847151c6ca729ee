"""Volumes and clips by the command line: files, shapes, where a map lies, what is refused, what is done again."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli.base.errors import RequestError
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job

CODE = """
import torch, camcli
from torch import nn


class Brightest(nn.Module):
    '''Scores of the mean of what is bright, and of what is dark, after one layer that halves every side.'''

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool3d(2)

    def forward(self, x):
        mean = (self.pool(x) ** 2).mean((1, 2, 3, 4))
        return torch.stack([mean, 1 - mean], 1)


def make():
    each = camcli.Preprocess((16, 16), (0.0,), (1.0,))
    return Brightest(), camcli.VolumePreprocess.of(each, slices=8), ["bright", "dark"]


def clip():
    each = camcli.Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3, resize=(16, 21), fit="squash", arithmetic="video",
                             interpolation="bilinear")
    return Brightest(), camcli.VolumePreprocess.of(each, slices=4, step=2), ["bright", "dark"]
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("vol.py").write_text(CODE)
    values = np.zeros((8, 16, 16), np.uint8)
    values[4:6, 2:4, 10:12] = 255  # a spot: slices 5 and 6 of 8
    np.save("vol.npy", values)


def run(**options):
    given = {"model": "vol.py:make", "inputs": ("vol.npy",), "out": "out", "device": "cpu", "target": ("bright",)}
    with Run(Job(**given | options)) as session:
        return [one for some in session for one in some], session


def test_a_spot_is_found_where_it_is():
    [[one], _] = run(layers=("pool",), method="hirescam", save=("array", "overlay-png", "gif", "heatmap"))
    assert one.error is None
    found = np.load("out/vol.npy.npy")
    assert found.shape == (4, 8, 8)
    assert np.unravel_index(found.argmax(), found.shape) == (2, 1, 5)
    assert np.count_nonzero(found) == 1
    # Eight tiles of 16 x 16, three in a row: the middle between slices 5 and 6 is theirs alike.
    x, y = one.peak
    at = int(y // 16) * 3 + int(x // 16)
    assert at in (4, 5)
    assert (x % 16, y % 16) == (11, 3)
    overlay = np.asarray(Image.open("out/vol.npy.overlay.png")).astype(int)
    assert overlay.shape == (48, 48, 3)
    with Image.open("out/vol.npy.gif") as film:
        assert film.size == (16, 16)
        shown = [film.info["duration"] for at in range(film.n_frames) if film.seek(at) is None]
    assert sum(shown) == 8 * 150  # like frames are one
    heat = np.asarray(Image.open("out/vol.npy.heatmap.png").convert("L"))
    tiles = [heat[16 * (k // 3) : 16 * (k // 3) + 16, 16 * (k % 3) : 16 * (k % 3) + 16] for k in range(8)]
    assert {k for k in range(8) if tiles[k].max() == max(one.max() for one in tiles)} == {4, 5}


def test_the_same_job_continues_and_another_look_is_made_anew():
    run(layers=("pool",), save=("array", "overlay"))
    before = Path("out/vol.npy.overlay.jpg").read_bytes()
    found, _ = run(layers=("pool",), save=("array", "overlay"))
    assert found == []
    [[one], _] = run(layers=("pool",), save=("array", "overlay"), colormap="viridis")
    assert one.error is None
    assert Path("out/vol.npy.overlay.jpg").read_bytes() != before
    record = json.loads(Path("out/run.json").read_text())
    assert record["model"]["preprocessing"]["slices"] == 8
    assert record["black_and_white"].startswith("0 and the greatest value")


def test_clips_of_a_video():
    pytest.importorskip("av", reason="videos need the extra video")
    from films import film

    film("a.mp4")
    [found, _] = run(model="vol.py:clip", inputs=("a.mp4",), every="1s", layers=("pool",), save=("mp4", "array"))
    assert [one.name for one in found] == ["a.mp4.t0000.000s", "a.mp4.t0001.000s"]
    assert [one.error for one in found] == [None, None]
    assert found[0].score < found[1].score  # frames grow brighter
    assert np.load("out/a.mp4.t0000.000s.npy").shape == (2, 8, 8)
    import av

    with av.open("out/a.mp4.t0000.000s.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"normalize": "run"}, "--normalize run is of images"),
        ({"bands": "1"}, "--bands and --rgb is of images"),
        ({"size": "32"}, "takes volumes, whose size"),
        ({"method": "rise"}, "rise works in the image plane"),
        ({"scales": "0.5,1"}, "--scales is of images"),
    ],
)
def test_what_is_of_images_is_refused_before_the_first(options, words):
    with pytest.raises(RequestError, match=words):
        run(**options)
    assert not Path("out/outcomes.jsonl").exists()


def test_films_are_of_volumes(tiny):
    Image.new("RGB", (8, 8), "red").save("a.png")
    with pytest.raises(RequestError, match="--save gif shows the slices of volumes"):
        run(model=tiny, inputs=("a.png",), save=("gif",), target=("red",))


def test_a_picture_among_volumes_is_a_failure_of_its_own():
    Image.new("L", (8, 8), 9).save("a.png")
    [found, _] = run(inputs=("a.png", "vol.npy"), layers=("pool",))
    assert "is no volume" in found[0].error
    assert found[1].error is None


@pytest.mark.parametrize("axes", ["zyx", "xyz", "yzx"])
def test_the_map_of_a_nifti_lies_in_its_space(axes):
    nibabel = pytest.importorskip("nibabel", reason="NIfTI needs the extra medical")
    Path("vol.py").write_text(CODE.replace("slices=8", f"slices=8, axes={axes!r}"))
    # More slices than the model takes, and rows and columns of which it sees the middle.
    sides, spot = (32, 48, 64), (14, 22, 37)
    values = np.zeros(sides, np.uint8)
    around = tuple(slice(at - 4, at + 4) for at in spot)
    values[around] = 255
    affine = np.array([[-0.5, 0.1, 0, 3], [0, 0, 2, -7], [0, -1, 0, 5], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, code=2)
    nibabel.save(image, "vol.nii.gz")
    [[one], _] = run(inputs=("vol.nii.gz",), layers=("pool",), method="hirescam", save=("nifti",), out=axes)
    assert one.error is None
    made = nibabel.load(f"{axes}/vol.nii.gz.nii.gz")
    np.testing.assert_array_equal(made.affine, nibabel.load("vol.nii.gz").affine)
    assert made.get_data_dtype() == np.float32
    assert int(made.header["sform_code"]) == 2
    found = made.get_fdata()
    assert found.shape == sides
    assert np.isnan(found).any() == (axes != "xyz" or sides[1] != sides[2])
    heaviest = np.argwhere(found > 0.9 * np.nanmax(found)).mean(0)
    # A cell of the map is two of the model's sixteen, and two of its eight slices.
    cells = np.array(sides) / np.where(np.arange(3) == "xyz".index(axes[0]), 4, 8)
    assert (np.abs(heaviest - (np.array(spot) - 0.5)) <= cells).all()
    again = Path(f"{axes}/vol.nii.gz.nii.gz").read_bytes()
    run(inputs=("vol.nii.gz",), layers=("pool",), method="hirescam", save=("nifti",), out="again")
    assert Path("again/vol.nii.gz.nii.gz").read_bytes() == again


def test_what_is_no_nifti_has_no_map_of_that_kind():
    [[one], _] = run(save=("nifti",), layers=("pool",))
    assert "is no NIfTI" in str(one.error)
    assert not list(Path("out").rglob("*.nii.gz"))
