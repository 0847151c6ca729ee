"""A trained detector on scenes with two objects of one class: the map of each box lies in that box."""

import numpy as np
import pytest
import torch
from shape_finder import compose, scene, shape_finder

from camcli import Explainer

SCENES = 12


def two_of_a_kind():
    """Scenes with two things of one class, so far from one another that receptive fields hardly touch."""
    noise, found = torch.Generator().manual_seed(5), []
    while len(found) < SCENES:
        (label, *one), (_, *other) = scene(noise, 2)
        if np.hypot(one[0] - other[0], one[1] - other[1]) > 28:
            found.append([(label, *one), (label, *other)])
    return torch.stack([compose(one, seed=seed) for seed, one in enumerate(found)])


def energy_in_own_box(method, *layers):
    """The share of each map's positive part, at the input's pixels, that lies in its own box; mean over boxes."""
    shares = []
    for some in Explainer(shape_finder(), method=method, layers=layers)(two_of_a_kind()):
        for one in some:
            cell = 64 // one.map.shape[0]
            positive = np.maximum(one.map, 0).repeat(cell, 0).repeat(cell, 1)
            # Cells that the box's edge crosses count.
            x0, y0, x1, y1 = one.box
            x0, y0 = (max(0, int(side // cell) * cell) for side in (x0, y0))
            x1, y1 = (int(-(-side // cell)) * cell for side in (x1, y1))
            shares.append(positive[y0:y1, x0:x1].sum() / (positive.sum() or 1))
    return float(np.mean(shares)), len(shares)


@pytest.mark.slow
def test_each_of_two_objects_of_a_class_has_its_own_map():
    odam, boxes = energy_in_own_box("odam")
    assert boxes == pytest.approx(2 * SCENES, abs=3)
    assert odam > 0.95
    assert energy_in_own_box("layercam")[0] > 0.95
    # At one layer, from which the boxes of both levels are made, so that the methods alone differ.
    names = ("odam", "layercam", "gradcam", "gradcam++", "eigencam")
    shares = {name: energy_in_own_box(name, "neck.stem")[0] for name in names}
    assert min(shares["odam"], shares["layercam"]) > 0.8
    # One weight for each channel, and no gradient at all, show both objects in both maps, or their surroundings.
    assert max(shares["gradcam"], shares["gradcam++"], shares["eigencam"]) < 0.4
