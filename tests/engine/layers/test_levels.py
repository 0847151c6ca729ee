"""A map for every box: at the levels that the box is read from, and where it is."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import pictures, seeded
from torch import nn

import camcli
from camcli import Explainer, Labels, Network, OutputSpec, Preprocess, RequestError
from camcli.engine.layers.levels import find_pyramid_levels
from camcli.engine.layers.paths import resolve
from camcli.engine.maps.fuse import fuse_layers, sum_layers
from camcli.engine.speed.folding import ConvNormPair

SIZE = 64


class Pyramid(nn.Module):
    """Two levels of eight channels, of 16 x 16 and 8 x 8 cells, the coarse made of the fine; ``body`` gives a third."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 4, stride=4)
        self.coarser = nn.Conv2d(8, 8, 2, stride=2)

    def forward(self, x):
        fine = self.body(x).relu()
        return OrderedDict(fine=fine, coarse=self.coarser(fine).relu())


class Detector(nn.Module):
    """Boxes of one class whose scores are read from known cells: the mean of a head over the cells of each box.

    A box is (level, first row, first column, rows, columns), in cells of its level.
    """

    def __init__(self, boxes) -> None:
        super().__init__()
        self.backbone, self.head = Pyramid(), nn.Conv2d(8, 1, 1)
        self.boxes = boxes

    def forward(self, x):
        says = {name: self.head(level) for name, level in self.backbone(x).items()}
        found = []
        for row in range(len(x)):
            scores, corners = [], []
            for level, top, left, rows, columns in self.boxes:
                cell = SIZE // says[level].shape[2]
                scores.append(says[level][row, 0, top : top + rows, left : left + columns].mean().sigmoid())
                corners.append([left * cell, top * cell, (left + columns) * cell, (top + rows) * cell])
            found.append(
                {
                    "boxes": torch.tensor(corners, dtype=x.dtype),
                    "scores": torch.stack(scores),
                    "labels": torch.zeros(len(scores), dtype=torch.long),
                }
            )
        return found


class Both(Detector):
    """One box that reads both levels at the same place."""

    def forward(self, x):
        levels = self.backbone(x)
        score = self.head(levels["fine"])[:, 0, 4:8, 4:8].mean((1, 2)) + self.head(levels["coarse"])[:, 0, 2, 3]
        box = torch.tensor([[16.0, 16, 32, 32]], dtype=x.dtype)
        return [{"boxes": box, "scores": one[None], "labels": torch.zeros(1, dtype=torch.long)} for one in score]


class Scoring(nn.Module):
    """A detector whose last module gives the scores themselves, a map for each level."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(8, 1, 1)

        def forward(self, levels):
            return [self.convolution(level) for level in levels.values()]

    def __init__(self) -> None:
        super().__init__()
        self.neck, self.head = Pyramid(), self.Head()

    def forward(self, x):
        scores = torch.cat([one.flatten(1) for one in self.head(self.neck(x))], 1).topk(2).values
        box = torch.tensor([[0.0, 0, 32, 32], [32, 32, 64, 64]], dtype=x.dtype)
        return [{"boxes": box, "scores": one, "labels": torch.zeros(2, dtype=torch.long)} for one in scores]


def network(module: nn.Module, **more) -> Network:
    preprocess = Preprocess((SIZE, SIZE), (0.0,) * 3, (1.0,) * 3, (SIZE, SIZE), "squash", "bilinear")
    seeded(module)
    output_spec = OutputSpec("detect", min_score=0.0)
    return Network(
        "planted", module, preprocess, Labels(("thing",)), "pretrained", "a test", output_spec=output_spec, **more
    )


PLACES = [("fine", 1, 2, 3, 4), ("fine", 9, 8, 4, 4), ("coarse", 1, 5, 2, 2), ("coarse", 5, 0, 2, 3)]


def inside(one) -> float:
    """Of the positive part of a map, taken to the input, how much lies in the box."""
    x0, y0, x1, y1 = (round(side) for side in one.box)
    cell = SIZE // one.map.shape[0]
    positive = np.maximum(one.map, 0).repeat(cell, 0).repeat(cell, 1)
    return positive[y0:y1, x0:x1].sum() / positive.sum()


def alike(found) -> float:
    """The mean correlation between maps, at the finest of their grids."""
    size = max(one.map.shape for one in found)
    flat = [F.interpolate(torch.tensor(one.map)[None, None], size, mode="bilinear").flatten().numpy() for one in found]
    return float(np.corrcoef(flat)[np.triu_indices(len(flat), 1)].mean())


def test_each_boxs_map_lies_in_its_own_box():
    explainer = Explainer(network(Detector(PLACES)))
    [found] = explainer(pictures(1, SIZE))
    assert [row.name for row in explainer.methods] == ["odam"]
    assert explainer.layers == ("backbone:fine", "backbone:coarse")
    assert len(found) == 4
    for one in found:
        assert one.map.any()
        assert inside(one) >= 0.9, one.box
        # Nothing outside either: the score is a mean over the box's cells.
        assert inside(one) == pytest.approx(1)
    assert {one.layer for one in found} == {"backbone:fine", "backbone:coarse"}
    assert {one.map.shape for one in found} == {(16, 16), (8, 8)}
    assert abs(alike(found)) < 0.2
    # A channel's mean gradient is the same for boxes of one size and class, wherever they are.
    same = network(Detector([("fine", 1, 2, 3, 3), ("fine", 9, 8, 3, 3)]))
    explainer = Explainer(same, method="gradcam", layers=["backbone:fine"])
    [found] = explainer(pictures(1, SIZE))
    assert alike(found) > 0.999
    assert any("look alike" in note and "odam" in note for note in explainer.notes)
    [found] = Explainer(same)(pictures(1, SIZE))
    assert abs(alike(found)) < 0.2


def test_the_product_at_a_level_by_hand():
    """By hand: d score / d level times the level, of the one level that the box is read from, in plain PyTorch."""
    module = network(Detector(PLACES))
    images = pictures(1, SIZE)
    [found] = Explainer(module)(images)
    made = module.module.backbone(images)
    for one in found:
        (level, top, left, rows, columns) = next(
            place
            for place in PLACES
            if one.box[:2] == (place[2] * SIZE / len(made[place[0]][0, 0]), place[1] * SIZE / len(made[place[0]][0, 0]))
        )
        point = made[level].detach().requires_grad_()
        score = module.module.head(point)[0, 0, top : top + rows, left : left + columns].mean().sigmoid()
        (gradient,) = torch.autograd.grad(score, point)
        expected = (gradient * point).sum(1)[0].detach().numpy()
        assert one.layer == f"backbone:{level}"
        assert np.abs(one.map - expected).max() <= 1e-6 * np.abs(expected).max()


def test_levels_that_a_box_draws_on_are_summed_up_each_for_itself():
    """The coarse level is made of the fine one: what goes through it is the coarse one's, and counts once."""
    module = network(Both([]))
    images = pictures(2, SIZE)
    found = [one for some in Explainer(module)(images) for one in some]
    with torch.no_grad():
        made = module.module.backbone(images)
    for row, one in enumerate(found):
        weight = module.module.head.weight[0, :, 0, 0]
        # d score / d fine is weight / 16 in the box's 16 cells; d score / d coarse is weight in one cell.
        fine, coarse = torch.zeros(16, 16, dtype=torch.float64), torch.zeros(8, 8, dtype=torch.float64)
        fine[4:8, 4:8] = torch.einsum("c,chw->hw", weight, made["fine"][row, :, 4:8, 4:8]) / 16
        coarse[2, 3] = weight @ made["coarse"][row, :, 2, 3]
        upsampled = F.interpolate(coarse[None, None] / 4, (16, 16), mode="bilinear")[0, 0]
        expected = (fine + upsampled).detach().numpy()
        assert one.layer == "backbone:fine+backbone:coarse"
        assert np.abs(one.map - expected).max() <= 1e-6 * np.abs(expected).max()
        # Score less bias: nothing is counted twice, nothing lost.
        assert one.map.sum() == pytest.approx(one.score - 2 * float(module.module.head.bias.detach()), rel=1e-5)


def test_sums_are_kept_where_grids_differ():
    fine, coarse = torch.rand(1, 8, 12, dtype=torch.float64), torch.rand(1, 4, 6, dtype=torch.float64)
    whole = fuse_layers([fine, coarse], "sum")
    assert whole.shape == (1, 8, 12)
    assert float(whole.sum()) == pytest.approx(float(fine.sum() + coarse.sum()))
    nothing = torch.zeros_like(fine)
    [(names, alone)] = sum_layers({"a": nothing, "b": coarse})
    assert names == "b"
    assert torch.equal(alone, coarse)
    [(names, none)] = sum_layers({"a": nothing})
    assert names == "a"
    assert not none.any()


@pytest.mark.slow
def test_maps_of_a_retinanets_boxes_are_not_one_map():
    net = camcli.load("torchvision:retinanet_resnet50_fpn", weights="random", seed=3, min_score=0.0)
    net.module.detections_per_img = 6
    image = pictures(1, 128, dtype=torch.float32)
    likeness = {method: alike(Explainer(net, method=method)(image)[0]) for method in ("gradcam", "auto")}
    # Measured: 0.93 and 0.06 here; of twelve boxes at 256 pixels 0.85 and 0.02.
    assert likeness["gradcam"] > 0.5
    assert likeness["auto"] < 0.25
    explainer = Explainer(net)
    [found] = explainer(image)
    assert explainer.layers == tuple(f"backbone:{name}" for name in ("0", "1", "2", "p6", "p7"))
    assert all(set(one.layer.split("+")) <= set(explainer.layers) for one in found)


def test_layers_and_methods_that_are_named_are_obeyed():
    module, images = network(Detector(PLACES)), pictures(1, SIZE)
    explainer = Explainer(module, layers=["backbone.body"])
    [found] = explainer(images)
    assert {(one.method, one.layer) for one in found} == {("odam", "backbone.body")}
    explainer = Explainer(network(Detector(PLACES[:2])), method="gradcam-elementwise")
    explainer(images)
    assert explainer.layers == ("backbone",)
    explainer = Explainer(module, method="layercam,hirescam")
    explainer(images)
    assert explainer.layers == ("backbone:fine", "backbone:coarse")
    named = network(Detector(PLACES), layer="backbone.body")
    assert {one.layer for one in Explainer(named)(images)[0]} == {"backbone.body"}
    explainer = Explainer(module, method="layercam", layers=["backbone:fine", "backbone:coarse"], fuse="sum")
    assert {one.layer for one in explainer(images)[0]} == {"backbone:fine", "backbone:coarse"}
    # Of a classifier nothing changes.
    assert [row.name for row in Explainer(nn.Conv2d(3, 2, 1)).methods] == ["gradcam"]


def test_scores_themselves_are_no_levels():
    """A head that gives a map of scores for each level is the last to give several maps, but nothing looks at them."""
    module = network(Scoring())
    explainer = Explainer(module)
    explainer(pictures(1, SIZE))
    assert explainer.layers == ("neck:fine", "neck:coarse")
    del module.module.head
    module.module.head = lambda some: [level.sum(1) for level in some.values()]
    image = pictures(1, SIZE)
    assert find_pyramid_levels(module.module, image, module.read) == ()


def test_one_of_several_tensors_is_named_by_its_key():
    module = Detector(PLACES)
    assert resolve(module, ["backbone:fine", "backbone"]) == ["backbone:fine", "backbone"]
    assert resolve(nn.Sequential(Detector(PLACES)), ["[0:1].backbone:fine"]) == ["0.backbone:fine"]
    found = network(module)
    with pytest.raises(RequestError, match="no 'bakbone'"):
        Explainer(found, layers=["bakbone:fine"])
    with pytest.raises(RequestError, match=r"'p9' .* has no such tensor") as error:
        Explainer(found, layers=["backbone:p9"])(pictures(1, SIZE))
    assert error.value.hint == "there are: fine, coarse"
    with pytest.raises(RequestError, match="one of several tensors"):
        Explainer(seeded(nn.Sequential(Pyramid())), layers=["0:fine"], method="ablation-cam")


def test_a_level_between_a_convolution_and_its_norm_is_left_alone():
    assert ConvNormPair("backbone.conv", "head.norm").touches("backbone:0")
    assert not ConvNormPair("backbone.conv", "backbone.norm").touches("backbone:0")
    assert not ConvNormPair("head.conv", "head.norm").touches("backbone:0")


def test_a_level_of_one_cell_says_that_it_names_no_place():
    class Single(Detector):
        def forward(self, x):
            self.backbone.coarser.stride = self.backbone.coarser.kernel_size = (16, 16)
            return super().forward(x)

    module = Single([("coarse", 0, 0, 1, 1)])
    module.backbone.coarser = nn.Conv2d(8, 8, 16, stride=16)
    [[one]] = Explainer(network(module))(pictures(1, SIZE))
    assert one.map.shape == (1, 1)
    assert any("locates nothing" in note for note in one.notes)


def test_layercam_at_several_levels_by_hand():
    """The sum over channels of activation times the positive gradient, each level for itself, at the finest grid."""
    module, images = network(Both([])), pictures(1, SIZE)
    [[one]] = Explainer(module, method="layercam")(images)
    with torch.no_grad():
        made = module.module.backbone(images)
        positive = module.module.head.weight[0, :, 0, 0].relu()
        fine, coarse = torch.zeros(16, 16, dtype=torch.float64), torch.zeros(8, 8, dtype=torch.float64)
        fine[4:8, 4:8] = torch.einsum("c,chw->hw", positive, made["fine"][0, :, 4:8, 4:8]) / 16
        coarse[2, 3] = positive @ made["coarse"][0, :, 2, 3]
    expected = (fine + F.interpolate(coarse[None, None] / 4, (16, 16), mode="bilinear")[0, 0]).numpy()
    assert one.layer == "backbone:fine+backbone:coarse"
    assert expected.any()
    assert np.abs(one.map - expected).max() <= 1e-6 * np.abs(expected).max()


def test_eigencam_at_several_levels_by_hand():
    """A V_1 of each level, divided by its maximum; their mean at the finest grid. It is the same for every box."""
    module, images = network(Detector(PLACES)), pictures(1, SIZE)
    levels = ["backbone:fine", "backbone:coarse"]
    [found] = Explainer(module, method="eigencam", layers=levels, fuse="mean")(images)
    with torch.no_grad():
        made = module.module.backbone(images)
    shares = []
    for level in made.values():
        cells = level[0].flatten(1).T
        projected = (cells @ torch.linalg.svd(cells).Vh[0]).reshape(level.shape[2:])
        projected = (projected * projected.sum().sign()).relu()
        shares.append(projected / projected.max())
    upsampled = F.interpolate(shares[1][None, None], (16, 16), mode="bilinear")[0, 0]
    expected = ((shares[0] + upsampled) / 2).numpy()
    assert len(found) == len(PLACES)
    for one in found:
        assert one.layer == "+".join(levels)
        assert np.abs(one.map - expected).max() <= 1e-6
