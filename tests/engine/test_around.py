"""What can be done around any method: fused layers, other sizes, mirrored images, smoothed channels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import ByHand, Small, explainer, named, pictures, same, seeded, untouched
from torch import nn

from camcli import Explainer, OutputSpec, PictureError, RequestError
from camcli.engine.maps.augment import Augmentation, list_sizes, make_augmentations
from camcli.engine.maps.fuse import fuse_layers

# ---- fusing

FINE = torch.tensor([[[4.0, -8.0], [2.0, 0.0]]])
COARSE = torch.tensor([[[5.0]]])
OTHER = torch.tensor([[[-1.0, 0.5], [1.0, 0.25]]])


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        # Rectified and scaled to 1: [[1, 0], [.5, 0]], [[1, 1], [1, 1]] and [[0, .5], [1, .25]].
        ("mean", [[2 / 3, 1.5 / 3], [2.5 / 3, 1.25 / 3]]),
        ("max", [[1, 1], [1, 1]]),
        ("product", [[0, 0], [0.5, 0]]),
    ],
)
def test_fusing_by_hand(how, wanted):
    map = fuse_layers([FINE, COARSE, OTHER], how)
    torch.testing.assert_close(map, torch.tensor([wanted], dtype=map.dtype))


def test_fusing_brings_maps_to_the_finest_grid_bilinearly():
    fine, coarse = pictures(2, 8)[:, 0], pictures(2, 4, seed=1)[:, 0]
    wanted = F.interpolate(coarse.relu()[:, None], (8, 8), mode="bilinear", align_corners=False)[:, 0]
    wanted = wanted / coarse.amax((1, 2), keepdim=True)
    torch.testing.assert_close(fuse_layers([0 * fine, coarse], "max"), wanted)


def test_a_map_that_is_nowhere_positive_is_zero_in_the_whole():
    assert fuse_layers([-FINE.abs(), OTHER], "max").tolist() == [[[0, 0.5], [1, 0.25]]]
    assert not fuse_layers([-FINE.abs(), OTHER], "product").any()


@pytest.mark.parametrize("how", ["mean", "max", "product"])
def test_fused_layers_through_a_network(how):
    model, images = Small(), pictures(2, 16)
    several = Explainer(model, layers=["conv2", "relu1"])(images, 1)
    one = Explainer(model, layers=["conv2", "relu1"], fuse=how)(images, 1)
    for maps, [whole] in zip(several, one, strict=True):
        assert whole.layer == "conv2+relu1"
        wanted = fuse_layers([torch.from_numpy(map.map)[None] for map in maps], how)[0]
        assert whole.map.shape == (16, 16)
        np.testing.assert_allclose(whole.map, wanted, atol=1e-6)


def test_the_papers_own_way_is_handed_the_maps_in_running_order_as_they_are(bring):
    handed = []

    def way(maps):
        handed.extend(maps)
        return maps[0]

    name = bring(lambda act, grad: (act * grad).sum(1), "own", fuse=way)
    explain = Explainer(Small(), layers=["conv2", "relu1"], method=name, fuse="paper")
    [[whole]] = explain(pictures(1, 16), 1)
    assert [tuple(map.shape) for map in handed] == [(1, 16, 16), (1, 8, 8)]
    assert handed[0].min() < 0
    assert whole.layer == "conv2+relu1"


def test_what_cannot_be_fused_is_refused():
    with pytest.raises(RequestError, match="but there is one: conv2"):
        Explainer(Small(), layers=["conv2"], fuse="mean")
    with pytest.raises(RequestError, match="but there is one"):
        Explainer(Small(), fuse="mean")(pictures(1, 16))
    with pytest.raises(RequestError, match="of gradcam does not define"):
        Explainer(Small(), layers=["conv2", "conv1"], fuse="paper")
    with pytest.raises(RequestError, match="guided-gradcam are signed"):
        Explainer(Small(), layers=["conv2", "conv1"], method="guided-gradcam", fuse="mean")
    with pytest.raises(RequestError, match="fuse cannot be 'total'"):
        Explainer(Small(), layers=["conv2", "conv1"], fuse="total")


# ---- mirrored images


def test_every_scale_is_shown_in_every_way_and_the_plainest_first():
    assert make_augmentations((0.5, 1.0), ()) == [Augmentation(1.0), Augmentation(0.5)]
    assert make_augmentations((1.0,), ("flip", "flip-vertical", "flip")) == [
        Augmentation(1.0, ()),
        Augmentation(1.0, (-1,)),
        Augmentation(1.0, (-2,)),
        Augmentation(1.0, (-1, -2)),
    ]


@pytest.mark.parametrize("method", ["gradcam", "guided-backprop", "guided-gradcam"])
@pytest.mark.parametrize(("flip", "dimension"), [("flip", -1), ("flip-vertical", -2)])
def test_a_flip_is_the_mean_with_the_mirrored_pictures_map_mirrored_back(method, flip, dimension):
    model, images = Small(), pictures(3, (16, 32))
    plain = explainer(model, method)(images, [[0], [1, 2], [3]])
    turned = explainer(model, method)(images.flip(dimension), [[0], [1, 2], [3]])
    layers = [] if method == "guided-backprop" else ["conv2"]
    with untouched(model):
        both = Explainer(model, layers=layers, method=method, flips=[flip])(images, [[0], [1, 2], [3]])
    for ones, others, means in zip(plain, turned, both, strict=True):
        for one, other, mean in zip(ones, others, means, strict=True):
            wanted = (one.map + np.flip(other.map, dimension)) / 2
            assert np.abs(mean.map - wanted).max() <= 1e-6 * np.abs(wanted).max()
            assert (mean.index, mean.score, mean.probability) == (one.index, one.score, one.probability)


def test_the_class_is_that_of_the_picture_itself():
    class Left(Small):
        """Its class is decided by the corner where red is, which mirroring moves away."""

        def forward(self, x):
            return super().forward(x) + torch.stack([50 * x[:, 0, 0, 0], *[0 * x[:, 0, 0, 0]] * 3], 1)

    model, image = Left(), pictures(1, 16)
    image[0, 0, 0, 0], image[0, 0, 0, -1] = 1.0, -1.0
    assert model(image).argmax() == 0 != model(image.flip(-1)).argmax()
    [[one]] = Explainer(model, layers=["conv2"], flips=["flip"])(image)
    assert one.index == 0


# ---- other sizes


def test_scales_are_the_mean_of_maps_brought_to_the_plain_grid():
    model, images = Small(), pictures(2, 16)
    found = Explainer(model, layers=["conv2"], scales=(0.5, 1.0, 1.5))
    with untouched(model):
        means = found(images, [1, 2])
    assert "16" not in found.notes[-1].split("x")
    assert "24x24, 8x8" in found.notes[-1]
    assert found.grids == {"conv2": (8, 8)}
    maps = []
    for size in (8, 16, 24):
        shown = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
        several = Explainer(model, layers=["conv2"])(shown, [1, 2])
        stack = torch.stack([torch.from_numpy(one.map).double() for [one] in several])[:, None]
        maps.append(F.interpolate(stack, (8, 8), mode="bilinear", align_corners=False)[:, 0])
    wanted = torch.stack(maps).mean(0).numpy()
    for [one], own in zip(means, wanted, strict=True):
        assert np.abs(one.map - own).max() <= 1e-6 * np.abs(own).max()


def test_maps_at_the_input_come_back_to_the_inputs_size():
    [[one]] = Explainer(Small(), method="guided-backprop", scales=(0.5, 2.0))(pictures(1, 16), 1)
    assert one.map.shape == (3, 16, 16)


def test_one_and_no_flip_change_nothing():
    images = pictures(2, 16)
    scaled = Explainer(Small(), layers=["conv2"], scales=(1.0, 1.0))(images)
    for [one], [other] in zip(explainer(Small())(images), scaled, strict=True):
        same(one, other)


def test_a_size_is_rounded_to_what_the_model_takes():
    assert list(list_sizes((224, 224), 1.0)) == [(224, 224)]
    assert list(list_sizes((224, 224), 0.7))[:2] == [(157, 157), (156, 156)]

    class Picky(Small):
        def forward(self, x):
            if x.shape[2] % 8 or x.shape[3] % 8:
                raise ValueError("sides must be multiples of 8")
            return super().forward(x)

    explain = Explainer(Picky(), layers=["conv2"], scales=(1.0, 0.7))
    explain.check(pictures(1, 32))
    assert "24x24" in explain.notes[-1]


def test_a_model_of_one_size_is_refused_with_its_words():
    class Strict(Small):
        def forward(self, x):
            assert x.shape[2] == 32, f"height {x.shape[2]} is not 32"
            return super().forward(x)

    explain = Explainer(Strict(), layers=["conv2"], scales=(1.0, 0.75))
    with pytest.raises(RequestError, match=r"not accept its input of 32x32 scaled by 0.75: height 24 is not") as caught:
        explain.check(pictures(1, 32))
    assert "--scales" in caught.value.hint


def test_of_a_segmentation_the_region_goes_along():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = seeded(nn.Conv2d(3, 5, 3, padding=1))
            self.head = seeded(nn.Conv2d(5, 3, 1))

        def forward(self, x):
            return self.head(self.layer(x).square())

    network = named(Dense(), 3, 8, output_spec=OutputSpec("segment"))
    region = torch.zeros(1, 8, 8, dtype=torch.bool)
    region[:, :, :3] = True
    images = pictures(1, 8)
    [[plain]] = Explainer(network, layers=["layer"])(images, 1, region)
    [[both]] = Explainer(network, layers=["layer"], flips=["flip"])(images, 1, region)
    [[turned]] = Explainer(network, layers=["layer"])(images.flip(-1), 1, region.flip(-1))
    np.testing.assert_allclose(both.map, (plain.map + turned.map[:, ::-1]) / 2, rtol=1e-5, atol=1e-7)
    [[scaled]] = Explainer(network, layers=["layer"], layout="nchw", scales=(0.5, 1.0))(images, 1, region)
    assert np.abs(scaled.map - plain.map).max() > 0


def test_factors_that_come_to_one_size_count_once():
    images = pictures(1, 16)
    [[one]] = Explainer(Small(), layers=["conv2"], scales=(1.0, 1.01))(images)
    same(one, explainer(Small())(images)[0][0])


# ---- smoothed channels


def first(act):
    """Stands for the first principal component: the first channel."""
    return act[:, 0]


def test_smoothing_is_handed_what_each_channel_has_in_the_map(bring):
    handed = []
    bring(lambda act: handed.append(act) or act[:, 0], "eigencam")
    red, green = [[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]
    image = torch.tensor([[red, green, red]])
    [[one]] = Explainer(ByHand(), layers=["layer"], eigen_smooth=True)(image, 0)
    # alpha = (0.5, -0.5), see the methods by hand.
    assert handed[-1][0, :2].tolist() == [[[0.5, 1.0], [1.5, 2.0]], [[0.0, -0.5], [-0.5, 0.0]]]
    assert one.map.tolist() == [[0.5, 1.0], [1.5, 2.0]]
    Explainer(ByHand(), layers=["layer"], method="hirescam", eigen_smooth=True)(image, 0)
    assert handed[-1][0, :2].tolist() == [[[1.0, 0.0], [0.0, 4.0]], [[0.0, -1.0], [-1.0, 0.0]]]


@pytest.mark.parametrize("method", ["guided-backprop", "guided-gradcam", "rectified", "asker", "mean"])
def test_what_has_no_channels_parts_cannot_be_smoothed(bring, method):
    bring(first, "eigencam")
    bring(lambda act, grad: (act * grad).sum(1).relu(), "rectified")
    bring(lambda act, score_of: act.sum(1), "asker")
    bring(lambda act: act.sum(1) / act.shape[1], "mean")
    layers = [] if method == "guided-backprop" else ["conv2"]
    with pytest.raises(
        RequestError, match=r"is not a sum over the layer's channels|computed from activations and gradient alone"
    ):
        Explainer(Small(), layers=layers, method=method, eigen_smooth=True).check(pictures(1, 16))


def test_a_fused_map_that_is_zero_says_so_of_its_layers(bring):
    name = bring(lambda act: -act.square().mean(1), "negative")
    explain = Explainer(Small(), layers=["conv2", "relu1"], method=name, fuse="max")
    with pytest.raises(PictureError, match=r"nothing at the layers 'conv2\+relu1' raises its score here"):
        explain(pictures(1, 16), 1)
