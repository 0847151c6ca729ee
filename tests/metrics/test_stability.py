"""Max-sensitivity, robustness and average DCC: by hand, where the explanation's law is known, and against Captum."""

import io

import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max
from PIL import Image

from camcli.base.errors import PictureError
from camcli.images.transform import Preprocess
from camcli.metrics.faithfulness import adcc
from camcli.metrics.stability import jpeg_robustness, max_sensitivity, noise_robustness, shift_robustness


def explaining(*explain):
    """From explanations of an image to that of arrays of images, one image for each or one for all."""

    def explain_again(variants):
        for one in variants:
            images = one if len(one) > 1 else [one[0]] * len(explain)
            yield np.stack([make(image) for make, image in zip(explain, images, strict=True)]).astype(np.float32)

    return explain_again


def pixels(image: np.ndarray) -> np.ndarray:
    """An explanation that moves with the image."""
    return image.sum(0)


def ramp(image: np.ndarray) -> np.ndarray:
    """One that does not look at it."""
    return np.arange(image[0].size, dtype=np.float32).reshape(image.shape[1:])


def nothing(image: np.ndarray) -> np.ndarray:
    return np.zeros_like(image[0])


def missing(image: np.ndarray) -> np.ndarray:
    return np.full_like(image[0], np.nan)


def make_maps(image: np.ndarray, *explain) -> np.ndarray:
    return next(explaining(*explain)([image[None]]))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    smooth = torch.nn.functional.interpolate(
        torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)), (40, 48), mode="bicubic"
    )
    return smooth[0].clamp(0, 1).numpy()


def test_max_sensitivity_is_captums(image) -> None:
    weights = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)

    def explain(one):
        return (np.sin(3 * one) * weights).sum(0)

    [ours] = max_sensitivity(make_maps(image, explain), image, explaining(explain), radius=0.1, samples=5, seed=3)
    rng = np.random.default_rng(3)
    noise = iter([rng.uniform(-0.1, 0.1, image.shape).astype(np.float32) for _ in range(5)])

    def bare(some):
        return some[0] if isinstance(some, tuple) else some

    def perturb(some, radius):
        return torch.stack([one + torch.from_numpy(next(noise)) for one in bare(some)])

    def explain_all(some):
        return (torch.stack([torch.from_numpy(explain(one.numpy())) for one in bare(some)]),)

    theirs = sensitivity_max(explain_all, torch.from_numpy(image)[None], perturb, n_perturb_samples=5)
    assert ours == pytest.approx(float(theirs), rel=1e-5)


def test_max_sensitivity_by_law(image) -> None:
    """A map is as sensitive as it is steep; one that does not look at the image is not, and one of zeros has none."""
    explain = (pixels, lambda one: 5 * pixels(one), ramp, nothing, missing)
    found = max_sensitivity(make_maps(image, *explain[:4], pixels), image, explaining(*explain), samples=3)
    least = 0.02 * 3 * np.sqrt(40 * 48) / np.linalg.norm(pixels(image))  # were every value changed by all of it
    assert 0 < found[0] < least
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[2] == 0
    assert np.isnan(found[3:]).all()
    [one, ten] = (max_sensitivity(make_maps(image, pixels), image, explaining(pixels), samples=n)[0] for n in (1, 10))
    assert one <= ten


@pytest.mark.parametrize("measure", ["pearson", "ssim"])
def test_what_moves_with_the_image_is_robust_to_shifts(image, measure) -> None:
    explain = (pixels, lambda one: pixels(one) ** 2, ramp, nothing, missing)
    maps = make_maps(image, *explain[:4], pixels)
    values, each = shift_robustness(maps, image, explaining(*explain), pixels=5, measure=measure)
    assert values[:2] == pytest.approx([1, 1], abs=1e-6)
    assert np.isnan(values[3:]).all()
    if measure == "pearson":
        # A ramp along the rows lies under itself if it is shifted, up to a constant.
        assert values[2] == pytest.approx(1)
        centre = np.exp(-((np.arange(40)[:, None] - 19.5) ** 2 + (np.arange(48) - 23.5) ** 2) / 200).astype(np.float32)
        [stays], [four] = shift_robustness(centre[None], image, explaining(lambda one: centre), pixels=5)
        expected = [
            np.corrcoef(one.ravel(), other.ravel())[0, 1]
            for one, other in (
                (centre[:, 5:], centre[:, :-5]),
                (centre[5:], centre[:-5]),
                (centre[:, :-5], centre[:, 5:]),
                (centre[:-5], centre[5:]),
            )
        ]
        assert four == pytest.approx(expected, abs=1e-6)
        assert stays == pytest.approx(np.mean(expected), abs=1e-6)
    assert each.shape == (5, 4)
    assert np.isnan(shift_robustness(maps, image, explaining(*explain), pixels=40)[0]).all()


def test_robustness_to_noise_is_the_mean_correlation(image) -> None:
    seen = []

    def explain(one):
        seen.append(pixels(one))
        return seen[-1]

    [value], [each] = noise_robustness(make_maps(image, pixels), image, explaining(explain), samples=3, spread=0.3)
    expected = [np.corrcoef(pixels(image).ravel(), one.ravel())[0, 1] for one in seen]
    assert len(expected) == 3
    assert each == pytest.approx(expected, abs=1e-6)
    assert value == pytest.approx(np.mean(expected), abs=1e-6)
    assert 0 < value < 1
    assert noise_robustness(make_maps(image, ramp), image, explaining(ramp))[0] == pytest.approx(1)


@pytest.mark.parametrize("bgr", [False, True])
def test_a_jpeg_is_that_of_pillow(image, bgr) -> None:
    preprocess = Preprocess(image.shape[1:], (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), bgr=bgr)
    given = preprocess.from_colours(image)
    seen = []
    jpeg_robustness(
        make_maps(given, pixels),
        preprocess.to_colours(given),
        preprocess.from_colours,
        explaining(lambda one: seen.append(one) or pixels(one)),
    )
    file = io.BytesIO()
    picture = Image.fromarray(np.rint(255 * image).astype(np.uint8).transpose(1, 2, 0))
    picture.save(file, "JPEG", quality=50, subsampling="4:2:0")
    expected = np.asarray(Image.open(file)).transpose(2, 0, 1) / 255
    ours = preprocess.to_colours(seen[0])
    assert np.abs(ours - expected).max() < 4 / 255
    assert np.abs(ours - image).max() > 4 / 255


def test_jpegs_have_one_channel_or_three(image) -> None:
    grey = image[:1]
    fine, rough = (
        jpeg_robustness(make_maps(grey, pixels), grey, np.asarray, explaining(pixels), quality=q)[0] for q in (100, 2)
    )
    assert fine > 0.999 > rough > 0
    assert np.isnan(jpeg_robustness(make_maps(grey, ramp), grey, np.asarray, explaining(missing))[0]).all()
    with pytest.raises(PictureError, match="the model's input has 4"):
        jpeg_robustness(make_maps(grey, ramp), np.repeat(grey, 4, 0), np.asarray, explaining(ramp))


def test_average_dcc_by_hand() -> None:
    image = np.ones((1, 2, 2), np.float32)
    first = np.array([[4, 2], [-1, 2]], np.float32)  # as a mask 1, 0.5, 0, 0.5
    maps = np.stack([first, first, first, np.ones((2, 2), np.float32), -first.clip(0)])
    again = (lambda one: one[0], lambda one: 1 - one[0], lambda one: one[0] * 0, lambda one: one[0], lambda one: one[0])

    def score_of(variants):
        return (one.sum((1, 2, 3)).astype(np.float64) for one in variants)

    values, parts = adcc(maps, image, score_of, explaining(*again))
    # Half of the score is kept, and half of the map is empty; the map of the masked image is the same, or the reverse.
    assert parts[0].tolist() == pytest.approx([0.5, 1, 0.5])
    assert parts[1].tolist() == pytest.approx([0.5, 0, 0.5])
    assert values[0] == pytest.approx(3 / (2 + 1 + 2))
    assert values[1] == pytest.approx(0, abs=1e-6)
    # A score that falls below zero is lost as a whole, and no better than that.
    lower = adcc(maps[:1], image, lambda variants: (score - 3 for score in score_of(variants)), explaining(again[0]))
    assert lower[1][0, 0] == 0
    # Of constant maps no likeness is known, and of one without positive values no drop.
    assert np.isnan(values[2:]).all()
