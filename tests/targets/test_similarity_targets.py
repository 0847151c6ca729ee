"""Similarity to a reference image: the cosine, and its map."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import named, pictures
from scored import IMAGES, MODEL
from torch import nn

from camcli import Explainer
from camcli.targets.readers.spec import OutputSpec


def likeness(reference, **options):
    headless = nn.Sequential(MODEL.features, MODEL.last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        features = headless(reference)
    network = named(headless, len(features), output_spec=OutputSpec(references=features))
    return headless, features, Explainer(network, layers=["1"], **options)


def test_likeness_is_the_cosine_and_its_map_is_of_its_gradient():
    reference = pictures(2, 8, seed=5)
    model, features, explain = likeness(reference)
    for row, index in ((0, 1), (1, 0)):
        image = IMAGES[row : row + 1]
        [[one]] = explain(image, index)
        act = model[:2](image).detach().requires_grad_()
        cosine = F.cosine_similarity(model[2:](act), features[[index]])[0]
        (gradient,) = torch.autograd.grad(cosine, act)
        np.testing.assert_allclose(
            one.map, (gradient.mean((2, 3), True) * act).sum(1)[0].detach(), rtol=1e-4, atol=1e-7
        )
        assert one.score == pytest.approx(float(cosine.detach()))
        assert one.probability is None


def test_why_more_like_one_than_like_the_other():
    reference = pictures(2, 8, seed=5)
    _, _, explain = likeness(reference, score="margin")
    _, _, plain = likeness(reference)
    [[margin]] = explain(IMAGES[:1], 0)
    [[first, second]] = plain(IMAGES[:1], [[0, 1]])
    np.testing.assert_allclose(margin.map, first.map - second.map, rtol=1e-4, atol=1e-7)


def test_the_reference_itself_is_explained_by_the_inner_product():
    model, features, explain = likeness(IMAGES[:1])
    [[one]] = explain(IMAGES[:1], 0)
    assert one.score == pytest.approx(1)
    assert "it is the reference itself" in " ".join(one.notes)
    act = model[:2](IMAGES[:1]).detach()
    weights = features[0] / features[0].square().sum() / act[0, 0].numel()
    np.testing.assert_allclose(one.map, (weights[:, None, None] * act[0]).sum(0), rtol=1e-4)
    # What the places have in it adds up to it.
    assert one.map.sum() == pytest.approx(1, rel=1e-5)
    # Mirrored, it is asked for in the same way.
    [[mirrored]] = likeness(IMAGES[:1], flips=["flip"])[2](IMAGES[:1], 0)
    assert mirrored.score == pytest.approx(1)
