"""Preprocessing by the arithmetic of tensors: resampling, the crop's corner and the order of channels."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode, functional

from camcli import Preprocess

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def draw(width, height):
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("arithmetic", ["tensor", "float"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_it_resizes_as_torchvision_resizes_tensors(arithmetic, interpolation):
    preprocess = Preprocess((48, 48), MEAN, STD, (61, 61), "shorter", interpolation, arithmetic=arithmetic)
    image = draw(122, 100)
    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    mean, std = (torch.tensor(one)[:, None, None] for one in (MEAN, STD))
    planes = planes * (1 / 255) if arithmetic == "float" else planes
    resized = functional.resize(planes, [61, int(61 * 122 / 100)], InterpolationMode(interpolation), antialias=True)
    cut = resized[:, 6 : 6 + 48, 13 : 13 + 48].float()  # 13 / 2 and 26 / 2, rounded down
    wanted = (cut - mean) / std if arithmetic == "float" else (cut - mean * 255) / (std * 255)
    ours, view = preprocess(image)
    assert torch.equal(ours, wanted)
    assert view.box == pytest.approx((13 * 122 / 74, 6 * 100 / 61, 61 * 122 / 74, 54 * 100 / 61))


def test_without_a_mean_levels_are_multiplied():
    preprocess = Preprocess((20, 30), (0.0,) * 3, (1.0,) * 3, fit="squash", arithmetic="tensor")
    image = draw(30, 20)
    assert torch.equal(preprocess(image)[0], torch.from_numpy(np.array(image)).permute(2, 0, 1) * (1 / 255))


@pytest.mark.parametrize("arithmetic", ["pillow", "tensor", "float"])
def test_blue_green_red_is_the_reverse_of_what_is_resized(arithmetic):
    plain = Preprocess((16, 16), (0.5,) * 3, (0.25,) * 3, arithmetic=arithmetic)
    image = draw(45, 31)
    assert torch.equal(replace(plain, bgr=True)(image)[0], plain(image)[0].flip(0))


@pytest.mark.parametrize("arithmetic", ["tensor", "float"])
def test_a_reduced_image_is_close_to_the_whole_one(arithmetic):
    preprocess = Preprocess((32, 32), MEAN, STD, arithmetic=arithmetic)
    y, x = np.mgrid[:1024, :1024] / 1023
    image = Image.fromarray((np.stack([x, y, (x + y) / 2], 2) * 255).astype(np.uint8))
    whole, _ = preprocess(image)
    reduced, _ = preprocess.from_reduced(image.reduce(4), image.size, (0.0, 0.0, 256.0, 256.0))
    assert torch.allclose(whole, reduced, atol=0.05)


def test_padding_of_blue_green_red_has_the_mean_colour():
    padded = Preprocess((16, 16), MEAN, STD, bgr=True).adapt(crop="none")
    assert padded.fill == tuple(round(255 * one) for one in MEAN[::-1])
    ours, _ = padded(Image.new("RGB", (16, 4), padded.fill))
    assert ours.abs().max() < 0.02


def test_a_record_of_it_is_read_back_and_one_of_the_last_release_too():
    preprocess = Preprocess((16, 16), MEAN, STD, arithmetic="tensor")
    recorded = asdict(preprocess)
    assert Preprocess(**recorded) == preprocess
    for name in ("arithmetic", "bgr", "corner"):
        del recorded[name]
    assert Preprocess(**recorded) == replace(preprocess, arithmetic="pillow")
