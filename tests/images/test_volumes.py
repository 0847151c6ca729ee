"""Volumes and clips: which slices are read, how they are prepared, and where maps are drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from camcli.base.errors import PictureError
from camcli.images.placement import Placement
from camcli.images.stacks import read_stack
from camcli.images.transform import Preprocess
from camcli.images.volumes import VolumePreprocess, VolumeView, lay_out

VOLUME = np.random.default_rng(0).integers(0, 256, (6, 8, 10), dtype=np.uint8)
PLAIN = Preprocess((8, 10), (0.0,), (1.0,), resize=(8, 10), fit="squash")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(path, slices=6, words="", start=0, step=1, axes="zyx", each=PLAIN):
    preprocess = VolumePreprocess.of(each, slices, step, axes)
    return read_stack(Path(path), preprocess, "#ffffff", words, start, lambda pixels: None)


def grey(slices):
    return np.stack([np.asarray(one.image)[..., 0] for one in slices])


# --- reading ----------------------------------------------------------------------------------------------------------


def test_slices_in_the_middle_of_equal_parts():
    np.save("a.npy", VOLUME)
    assert np.array_equal(grey(read("a.npy")), VOLUME)
    assert np.array_equal(grey(read("a.npy", 3)), VOLUME[[1, 3, 5]])
    assert np.array_equal(grey(read("a.npy", 12)), VOLUME.repeat(2, 0))
    assert np.array_equal(grey(read("a.npy", 1)), VOLUME[[3]])


def test_channels_of_a_volume_are_last_or_first():
    colours = np.stack([VOLUME, 255 - VOLUME], 3)
    for name, values in (("a.npy", colours), ("b.npy", colours.transpose(3, 0, 1, 2))):
        np.save(name, values)
        planes = np.stack([one.planes for one in read(name)])
        assert np.array_equal(planes, colours.astype(np.float32) / 255)


def test_one_range_is_of_all_slices():
    values = np.arange(6, dtype=np.float32).reshape(6, 1, 1) * np.ones((6, 8, 10), np.float32)
    np.save("a.npy", values)
    planes = [float(one.planes.mean()) for one in read("a.npy", words="auto")]
    np.testing.assert_allclose(planes, np.arange(6) / 5, atol=1e-6)
    with pytest.raises(PictureError, match="values from 0 to 5"):
        read("a.npy")


@pytest.mark.parametrize("axes", ["zyx", "xyz", "yzx"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_axes_of_a_nifti(axes, name):
    nibabel = pytest.importorskip("nibabel", reason="NIfTI needs the extra medical")
    stored = VOLUME.transpose(2, 1, 0)  # x, y, z
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), name)
    expected = stored.transpose(["xyz".index(one) for one in axes])
    assert np.array_equal(grey(read(name, len(expected), axes=axes)), expected)
    assert np.array_equal(grey(read(name, axes="zyx")), VOLUME)


def test_pages_are_slices():
    first, *others = map(Image.fromarray, VOLUME)
    first.save("a.tif", save_all=True, append_images=others)
    assert np.array_equal(grey(read("a.tif")), VOLUME)
    with pytest.raises(PictureError, match="each has its own 1%,99%"):
        read("a.tif", words="1%,99%")


def test_frames_of_a_clip():
    pytest.importorskip("av", reason="videos need the extra video")
    from films import film

    film("a.mp4")

    def numbers(**more):  # frames are told apart by a grey that grows with their number
        return [round(float(np.asarray(one.image)[:, -20:].mean()) / 5) for one in read("a.mp4", 4, **more)]

    assert numbers() == [0, 1, 2, 3]
    assert numbers(start=11, step=3) == [10, 13, 16, 19]
    assert numbers(start=49, step=2) == [43, 45, 47, 49]  # moved back, to end with the video
    with pytest.raises(PictureError, match="has 50 frames, and the model takes 60"):
        read("a.mp4", 60)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((4, 4)), "of shape 4x4, which is no volume"),
        (np.zeros((2, 2, 2, 2, 2)), "of shape 2x2x2x2x2"),
        (np.array([[[None]]]), "array of object"),
        (np.full((2, 2, 2), np.nan), "NaN"),
    ],
)
def test_arrays_that_are_no_volumes(values, words):
    np.save("a.npy", values, allow_pickle=True)
    with pytest.raises(PictureError, match=words):
        read("a.npy")


def test_files_that_are_no_volumes():
    Image.fromarray(VOLUME[0]).save("a.png")
    with pytest.raises(PictureError, match="is no volume, and the model takes volumes of 6 slices"):
        read("a.png")
    Path("a.nii").write_bytes(b"none")
    with pytest.raises(PictureError):
        read("a.nii")


def test_numbers_that_no_volume_has():
    for wrong in ({"slices": 0}, {"slices": 2, "step": 0}, {"slices": 2, "axes": "zz"}):
        with pytest.raises(ValueError, match="from 1 on"):
            VolumePreprocess.of(PLAIN, **wrong)


# --- preparing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(120, 160), (97, 64)])
def test_clips_are_prepared_as_torchvision_does_to_the_bit(size):
    from torchvision.models.video import R3D_18_Weights

    theirs = R3D_18_Weights.KINETICS400_V1.transforms()
    each = Preprocess(
        (112, 112),
        tuple(theirs.mean),
        tuple(theirs.std),
        resize=(128, 171),
        fit="squash",
        interpolation="bilinear",
        arithmetic="video",
    )
    frames = np.random.default_rng(1).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    ours = torch.stack([each(Image.fromarray(one))[0] for one in frames], 1)
    expected = theirs(torch.from_numpy(frames).permute(0, 3, 1, 2))
    assert torch.equal(ours, expected)


# --- drawing ----------------------------------------------------------------------------------------------------------


def view_of(slices=6, each=PLAIN):
    return lay_out([np.dstack([one] * 3) for one in VOLUME[:slices]], VolumePreprocess.of(each, slices))


def test_slices_lie_side_by_side():
    picture, view = view_of()
    assert isinstance(view, VolumeView)
    assert picture.shape[:2] == view.picture
    tiles = view.split(picture)
    assert all(np.array_equal(tile[..., 0], one) for tile, one in zip(tiles, VOLUME, strict=True))


def test_only_what_the_model_sees_is_shown():
    each = Preprocess((4, 4), (0.0,), (1.0,), resize=(8, 10), fit="squash")  # the middle, 4 x 4 of 8 x 10
    picture, view = view_of(4, each)
    assert all(
        np.array_equal(tile[..., 0], one[2:6, 3:7]) for tile, one in zip(view.split(picture), VOLUME, strict=False)
    )


def test_a_map_of_pixels_is_drawn_in_place():
    _, view = view_of()
    map = np.random.default_rng(2).random((6 * 8, 10), np.float32)
    drawn = view.onto_picture(map)
    for at, tile in enumerate(view.split(drawn)):
        np.testing.assert_allclose(tile, map[8 * at : 8 * at + 8], atol=1e-6)
    assert view.unfold(map).shape == (6, 8, 10)


def test_a_map_of_cells_is_linear_between_slices():
    _, view = view_of()
    placed = view.placed(Placement((0.0, 0.0), (1.0, 1.0), slices=3))
    map = np.repeat(np.array([0.0, 1.0, 4.0], np.float32), 2)[:, None] * np.ones((6, 2), np.float32)
    values = [float(tile.mean()) for tile in placed.split(placed.onto_picture(map))]
    # Slices at -0.25, 0.25, 0.75, 1.25, 1.75 and 2.25 of the map's 0, 1 and 2.
    np.testing.assert_allclose(values, [0, 0.25, 0.75, 1.75, 3.25, 4], atol=1e-6)
    assert placed.unfold(map).shape == (3, 2, 2)
    np.testing.assert_allclose([float(tile.mean()) for tile in placed.split(placed.enlarge(map))], values, atol=1e-6)


def test_the_peak_is_in_the_tile_of_its_slice():
    _, view = view_of()
    map = np.zeros((6 * 8, 10), np.float32)
    map[4 * 8 + 2, 7] = 1
    x, y = view.peak(map)
    down, across = divmod(4, view.columns)
    assert (x, y) == (pytest.approx(across * 10 + 7.5), pytest.approx(down * 8 + 2.5))
    assert view.visible_cells(map.shape).all()


def test_a_view_drawn_at_another_size():
    picture, view = view_of()
    height, width = picture.shape[0] * 3, picture.shape[1] * 2
    drawn = view.scale(height, width).onto_picture(np.ones((6 * 8, 10), np.float32))
    assert drawn.shape == (height, width)
    assert np.isfinite(drawn).all()
