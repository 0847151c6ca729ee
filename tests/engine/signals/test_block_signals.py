"""Methods of blocks through the explainer: batches, shared forward passes, precision, other sizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import (
    Compared,
    Stacked,
    explainer,
    named,
    pictures,
    same,
    seeded,
    small,
    untouched,
)
from torch import nn
from transformer_blocks import NEW, OF_BLOCKS
from vision_transformers import SIZE, open_clip_vit

from camcli import Explainer, PictureError


def counted(module):
    """The numbers of images that the module's own code is run on, in a list that grows."""
    runs = []

    class Counted(type(module)):
        def forward(self, given):
            runs.append(len(given))
            return super().forward(given)

    module.__class__ = Counted
    return runs


# ---- through the explainer


@pytest.mark.parametrize("method", NEW)
def test_a_batch_is_its_singles_and_classes_stand_one_behind_the_other(method):
    model, images = small(method), pictures(3, 16)
    asked = [[0, 3], [1], [2, 3]]
    explain = explainer(model, method)
    explain.setup.runner.batch_size = 2
    together = explain.results(images, lambda row, scores: asked[row])
    for row, classes in enumerate(asked):
        for one, index in zip(together[row], classes, strict=True):
            [alone] = explainer(model, method).results(images[row : row + 1], lambda _, scores, index=index: [index])[0]
            if isinstance(one, PictureError):
                assert one.message == alone.message
            else:
                same(one, alone)


def test_several_methods_share_a_forward_and_have_the_maps_that_each_has_alone():
    model, images = Compared(), pictures(2, 16)
    runs = counted(model.conv1)
    explain = explainer(model, "gae")
    explain = Explainer(explain.network, method=[*NEW, "gae", "rollout", "gradcam", "scorecam"], layers=["conv2"])
    explain(images, 1)
    runs.clear()
    found = explain(images, 1)
    # Beside the one forward those of Score-CAM: of six channels and a grey image of two images, eight at a time.
    assert runs == [2, 8, 6]
    for row in range(2):
        for one in found[row]:
            alone = Explainer(explain.network, method=one.method, layers=["conv2"] if one.layer else [])(images, 1)[
                row
            ][0]
            same(one, alone)


def test_what_runs_again_for_several_prompts_runs_once():
    model, images = Compared(), pictures(2, 16)
    explain = Explainer(explainer(model, "gae").network, method=["maskclip", "clip-surgery"])
    runs = counted(model.blocks[0])
    explain(images, 1)
    runs.clear()
    explain(images, [[0, 1, 2, 3]] * 2)
    # The forward, and the path of CLIP Surgery.
    assert runs == [2, 2]


@pytest.mark.parametrize("method", NEW)
def test_an_error_in_the_end_leaves_everything_as_it_was(method):
    model, images = small(method), pictures(2, 16)
    explain = explainer(model, method)
    explain(images, 1)
    turns = []

    def fail(*_):
        turns.append(1)
        if len(turns) == 2:  # the first is the forward itself
            raise ZeroDivisionError

    last = model.blocks[1].mlp
    handle = last.register_forward_pre_hook(fail)
    with untouched(model):
        if method == "grad-eclip":
            explain(images, 1)
        else:
            with pytest.raises(ZeroDivisionError):
                explain(images, 1)
    handle.remove()
    assert torch._C._len_torch_function_stack() == 0
    explain(images, 1)


@pytest.mark.parametrize("method", NEW)
def test_bfloat16_gives_nearly_the_maps_of_float32(method):
    tower, images = open_clip_vit(), pictures(2, SIZE)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.mul_(0.5)
    maps = []
    for dtype in (torch.float32, torch.bfloat16):
        model = Prompts(tower).to(dtype)
        network = named(model, 3, SIZE, prefix=1, grid=(4, 4), cosine=(2.0, 0.0))
        maps.append(np.stack([one.map for [one] in Explainer(network, method=method)(images.to(dtype), 1)]))
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.98


class Prompts(nn.Module):
    """A tower, and twice the cosines of what it says with three directions."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower
        self.register_buffer("directions", F.normalize(pictures(1, 5)[0, 0, :3], dim=1))

    def forward(self, images):
        return 2 * F.normalize(self.tower(images), dim=1) @ self.directions.T


@pytest.mark.parametrize("method", NEW)
def test_other_sizes_and_mirrored_pictures(method):
    network = explainer(small(method), method).network or small(method)
    explain = Explainer(network, method=method, scales=[1.0, 1.5], flips=["flip"])
    images = pictures(1, 16)
    [[one]] = explain(images, 1)
    assert one.map.shape == (8, 8)
    assert any("24x24" in note for note in explain.notes)


@OF_BLOCKS
def test_an_end_that_cannot_be_run_alone_is_run_with_all_before_it(method):
    class Batched(Stacked):
        """What its first module gives does not go by images, and is used behind the blocks."""

        def __init__(self):
            super().__init__()
            self.table = seeded(nn.Conv2d(3, 6, 1))

        def forward(self, x):
            scale = self.table(torch.ones(1, 3, 1, 1, dtype=x.dtype)).reshape(6)
            return self.fc(self.feature(x) * scale)

    class Known(Batched):
        def forward(self, x):
            return self.fc(self.feature(x) * (self.table.weight.sum(1).flatten() + self.table.bias))

    images = pictures(2, 16)
    explain, other = Explainer(Batched(), method=method), Explainer(Known(), method=method)
    for [one], [wanted] in zip(explain(images, 1), other(images, 1), strict=True):
        same(one, wanted)
    words = "the whole network runs for each of its evaluations"
    assert [any(words in note for note in one.notes) for one in (explain, other)] == [True, False]
