"""Scores of changed images, asked for with arrays, for classes that were explained before."""

import numpy as np
import pytest
import torch
from torch import nn

from camcli.engine.explainer import Explainer
from camcli.engine.setup import make_score
from camcli.engine.signals.asked import make_score_of_arrays


class Pooled(nn.Module):
    """Scores of three classes, which depend on each image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(images).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 2, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("score", ["logit", "probability", "margin"])
def test_the_image_itself_has_the_score_that_was_explained(images: np.ndarray, score: str) -> None:
    torch.manual_seed(0)
    explainer = Explainer(Pooled().eval(), layer="conv", score=score)
    explained = [one.score for [one] in explainer(torch.from_numpy(images), targets=[2, 0])]
    runner = explainer.setup.runner
    with runner.ready():
        for image, index, expected in zip(images, [2, 0], explained, strict=True):
            score_of = make_score_of_arrays(runner, image, index)
            assert next(score_of([image[None]])) == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_variants_come_back_in_order_whatever_fits_at_once(images: np.ndarray, rows: int) -> None:
    torch.manual_seed(0)
    module = Pooled().eval()
    runner = Explainer(module, layer="conv").setup.runner
    variants = [images * factor for factor in (0, 1, 2)] + [images[:0], images[:1], images.repeat(3, 0)]
    sizes = []
    module.register_forward_pre_hook(lambda _module, given: sizes.append(len(given[0])))
    with runner.ready(), torch.no_grad():
        expected = [module(torch.from_numpy(one))[:, 2].numpy() for one in variants]
        sizes.clear()
        found = [*make_score_of_arrays(runner, images[0], 2, rows=rows)(iter(variants))]
    assert [len(one) for one in found] == [2, 2, 2, 0, 1, 6]
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), rtol=1e-5)
    assert sizes == [1, *[rows] * (13 // rows), *[13 % rows] * (13 % rows > 0)]


def test_another_number_among_the_classes_that_compete(images: np.ndarray) -> None:
    torch.manual_seed(0)
    module = Pooled().eval()
    runner = Explainer(module, layer="conv").setup.runner
    probability = make_score("probability", (), False, None, "softmax")
    with runner.ready(), torch.no_grad():
        logits = module(torch.from_numpy(images))
        few = make_score_of_arrays(runner, images[0], 2, (1, 2), probability)
        assert next(few([images[:1]])) == pytest.approx([float(logits[0, 1:].softmax(0)[1])], rel=1e-5)
        every = make_score_of_arrays(runner, images[1], 0, (), probability)
        assert next(every([images[1:]])) == pytest.approx([float(logits[1].softmax(0)[0])], rel=1e-5)
