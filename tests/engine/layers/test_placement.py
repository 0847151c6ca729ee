"""A map lies where its layer looks: by padding's arithmetic, on planted objects, in mirrored images, when fused."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from camcli import Explainer, View
from camcli.engine.layers.locate import describe_locations
from camcli.engine.maps.augment import Augmentation
from camcli.engine.maps.fuse import fuse_layers
from camcli.images.placement import Placement, upsample
from camcli.methods.gradient import layercam_fusion

RESNET, TF, VALID, PATCHES = (3, 1, 1), (3, 0, 1), (3, 0, 0), (2, 0, 0)


class Chain(nn.Module):
    """Four strided convolutions of so large kernels, so much padding before and behind: what is bright counts."""

    def __init__(self, kernel: int, before: int, behind: int, squeeze: bool = False) -> None:
        super().__init__()
        self.pad = (before, behind, before, behind)
        self.convs = nn.ModuleList(nn.Conv2d(3 if not turn else 4, 4, kernel, 2, bias=False) for turn in range(4))
        for conv in self.convs:
            nn.init.constant_(conv.weight, 1 / kernel**2)
        self.squeeze = squeeze
        self.last = nn.Identity()

    def forward(self, images):
        features = images
        for conv in self.convs:
            features = conv(F.pad(features, self.pad)).relu()
            if self.squeeze:  # each cell depends on the whole image a little
                features = features * (1 + 0.1 * features.mean((2, 3), keepdim=True))
        return self.last(features).mean((2, 3))


def by_arithmetic(convolutions, start=0.5):
    """Where the first cell's centre lies, and the stride, behind convolutions of (kernel, stride, padding before)."""
    first, stride = start, 1
    for kernel, step, before in convolutions:
        first += stride * ((kernel - 1) / 2 - before)
        stride *= step
    return first, stride


def bright(size, *centre, side=9):
    """A bright square about a point (x, y) on black."""
    picture = torch.zeros(1, 3, size, size)
    x, y = (round(at - side / 2) for at in centre)
    picture[..., max(0, y) : y + side, max(0, x) : x + side] = 1
    return picture


def whole(size, placement=None):
    return View((size, size), (size, size), (0.0, 0.0, float(size), float(size)), placement)


def near(placement, first, stride):
    """Whether these are the cells' places, but for a pixel that noise may be off."""
    return placement.stride == (stride, stride) and placement.first == pytest.approx((first, first), abs=1)


def explained(chain, picture, **more):
    [[one]] = Explainer(chain, layers=["last"], **more)(picture, 0)
    return one


CHAINS = [
    # Of 96 pixels: by hand 0.5 of 16 for 3x3 with padding 1 (drawn evenly: 8); 1 + 2 + 4 + 8 + 0.5 for the other two.
    (RESNET, 96, 0.5, 6),
    (TF, 96, 15.5, 6),
    (VALID, 95, 15.5, 5),
    ((5, 1, 2), 96, 15.5, 6),
    ((4, 1, 1), 96, 8.0, 6),
]


@pytest.mark.parametrize(("padding", "size", "first", "cells"), CHAINS)
@pytest.mark.parametrize("squeeze", [False, True])
def test_a_layers_place_is_that_of_paddings_arithmetic(padding, size, first, cells, squeeze):
    assert by_arithmetic([(padding[0], 2, padding[1])] * 4) == (first, 16)
    explain = Explainer(Chain(*padding, squeeze=squeeze), layers=["last"])
    explain(torch.rand(1, 3, size, size), 0)
    located = explain.locations["last"]
    assert located.grid == (cells, cells)
    placement = located.placement or Placement.even(located.grid, (size, size))
    assert placement.stride == (16, 16)
    assert placement.first == pytest.approx((first, first), abs=1)


def test_what_lies_evenly_stays_to_the_bit():
    for chain, size in ((Chain(*PATCHES), 96), (Chain(4, 1, 1), 96)):
        one = explained(chain, bright(size, 40, 40))
        assert one.placement is None
        assert np.array_equal(one.map, explained(chain, bright(size, 40, 40), placement="even").map)


@pytest.mark.parametrize(("padding", "size", "first", "cells"), CHAINS)
def test_the_peak_lies_on_a_planted_object(padding, size, first, cells):
    chain = Chain(*padding)
    for column, row in ((1, 1), (2, 3), (3, 1)):
        x, y = first + 16 * column, first + 16 * row
        one = explained(chain, bright(size, x, y))
        peak = whole(size, one.placement).peak(np.maximum(one.map, 0))
        assert peak == pytest.approx((x, y), abs=1.5)
        onto = whole(size, one.placement).onto_picture(one.map)
        drawn = np.unravel_index(onto.argmax(), onto.shape)
        assert (drawn[1] + 0.5, drawn[0] + 0.5) == pytest.approx((x, y), abs=2)
    evenly = whole(size).peak(np.maximum(explained(chain, bright(size, x, y), placement="even").map, 0))
    assert evenly == pytest.approx(tuple((at + 0.5) * size / cells for at in (3, 1)))


def centre(onto):
    """The centre of mass of a drawn map's strong half, as x and y."""
    strong = np.clip(onto - onto.max() / 2, 0, None)
    rows, columns = np.indices(onto.shape) + 0.5
    return np.array([(strong * columns).sum(), (strong * rows).sum()]) / strong.sum()


@pytest.mark.parametrize("padding", [RESNET, TF])
@pytest.mark.parametrize("at", [(48, 48), (40.5, 56), (33, 44)])
def test_a_mirrored_pictures_map_is_the_map_mirrored_within_a_pixel(padding, at):
    chain, size = Chain(*padding), 96
    apart = {}
    for placement in ("measured", "even"):
        plain, turned = (
            whole(size, one.placement).onto_picture(one.map)
            for picture in (bright(size, *at, side=31), bright(size, *at, side=31).flip(3))
            for one in [explained(chain, picture, placement=placement)]
        )
        apart[placement] = np.abs(centre(plain) - centre(turned[:, ::-1])).max()
    # Drawn evenly, the two lie up to a cell of 16 pixels apart.
    assert apart["measured"] < 1.5
    assert apart["even"] > 10


def test_the_mean_with_the_mirrored_picture_lies_on_the_object_too():
    chain = Chain(*RESNET)
    one = explained(chain, bright(96, 32.5, 48.5), flips=("flip",))
    assert near(one.placement, 0.5, 16)
    assert whole(96, one.placement).peak(one.map) == pytest.approx((32.5, 48.5), abs=1)
    # By hand: mirrored, the cells lie at 15.5, 31.5, ... 95.5; the grid's, at 0.5, 16.5, ..., are 1/16 of the way on.
    values = torch.arange(36.0).view(1, 6, 6) ** 2
    placement = Placement((0.5, 0.5), (16.0, 16.0))
    back = Augmentation(flips=(-1,)).invert(values, (6, 6), (96, 96), placement, placement)
    turned = values.flip(2)
    wanted = turned.clone()
    wanted[..., 1:] = turned[..., :-1] + (turned[..., 1:] - turned[..., :-1]) / 16
    torch.testing.assert_close(back, wanted)


def test_even_cells_are_mirrored_back_to_the_bit():
    values = torch.randn(2, 6, 6)
    assert torch.equal(Augmentation(flips=(-1,)).invert(values, (6, 6), (96, 96)), values.flip(2))
    # Their strides are uneven, and symmetrical all the same.
    placement = Placement((10.0, 10.0), (15.2, 15.2))
    assert torch.equal(Augmentation(flips=(-2,)).invert(values, (6, 6), (96, 96), placement, placement), values.flip(1))


def test_a_scaled_pass_is_brought_to_the_grid_by_its_places():
    # Twice the size and the same stride: 12 cells at 1 + 16 j of 192 pixels are 0.5 + 8 j of 96.
    values = torch.arange(12.0).expand(1, 12, 12)
    own, onto = Placement((1.0, 1.0), (16.0, 16.0)), Placement((0.5, 4.5), (16.0, 16.0))
    back = Augmentation(scale=2.0, size=(192, 192)).invert(values, (6, 6), (96, 96), own, onto)
    assert back[0, 0].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]


def test_fused_layers_meet_at_their_places():
    fine = torch.zeros(1, 1, 4)
    coarse = torch.tensor([[[0.0, 8.0]]])
    # Coarse cells at 4 and 12 of 16 pixels, fine ones at 2, 6, 10, 14; then at 0, 4, 8, 12.
    assert fuse_layers([fine, coarse], "max").tolist() == [[[0, 0.25, 0.75, 1]]]
    shifted = [Placement((8.0, 0.0), (16.0, 4.0)), None]
    assert fuse_layers([fine, coarse], "max", None, shifted, (16, 16)).tolist() == [[[0, 0, 0.5, 1]]]
    assert fuse_layers([fine, coarse], "paper", layercam_fusion, shifted, (16, 16)).tolist() == [[[0, 0, 0.5, 1]]]
    # A function that takes the maps alone is handed them on the finest grid.
    assert fuse_layers([fine, coarse], "paper", lambda maps: maps[1], shifted, (16, 16)).tolist() == [[[0, 0, 4, 8]]]


def test_the_fused_map_lies_where_the_finest_layer_looks():
    chain = Chain(*RESNET)
    explain = Explainer(chain, layers=["convs.2", "last"], method="layercam", fuse="max")
    [[one]] = explain(bright(96, 32.5, 48.5), 0)
    assert one.map.shape == (12, 12)
    assert near(one.placement, 0.5, 8)
    assert whole(96, one.placement).peak(one.map) == pytest.approx((32.5, 48.5), abs=1)


def test_pixels_by_hand_and_as_the_view_has_them():
    maps = torch.tensor([[[[0.0, 8.0]]]])
    # Cells at 0.5 and 4.5: pixel centres 0.5, 1.5, ... are quarters of the way.
    placement = Placement((0.5, 0.5), (4.0, 4.0))
    assert upsample(maps, (1, 6), placement).tolist() == [[[[0, 2, 4, 6, 8, 8]]]]
    noise = torch.randn(1, 1, 5, 7)
    placement = Placement((-1.5, 3.0), (9.0, 8.0))
    view = View((50, 60), (50, 60), (0.0, 0.0, 60.0, 50.0), placement)
    np.testing.assert_allclose(
        view.onto_picture(noise[0, 0].numpy()), upsample(noise, (50, 60), placement)[0, 0], atol=1e-5
    )


@pytest.mark.parametrize("method", ["scorecam", "guided-gradcam"])
def test_masks_and_products_lie_where_the_layer_looks(method):
    chain = Chain(*RESNET)
    seen = []
    explain = Explainer(chain, layers=["last"], method=method)
    if method == "scorecam":
        chain.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().clone()))
    [[one]] = explain(bright(96, 32.5, 48.5) + 0.01, 0)
    if method == "scorecam":
        # The last variants are the image under each channel's mask: brightest where the object is.
        onto = seen[-1][-1].sum(0).numpy()
    else:
        onto = np.abs(one.map).sum(0)
        assert one.placement is None
    rows, columns = np.indices(onto.shape) + 0.5
    strong = onto > onto.max() / 2
    assert (columns[strong].mean(), rows[strong].mean()) == pytest.approx((32.5, 48.5), abs=4)


def test_another_picture_size_and_padding_shift_the_peak_alike():
    # Of an image of 192 x 96, seen as its right half: input pixel x is 96 + x.
    view = View((96, 192), (96, 96), (96.0, 0.0, 192.0, 96.0), Placement((0.5, 8.5), (16.0, 16.0)))
    assert view.cell_centre(1, 2, (6, 6)) == (96 + 8.5 + 32, 16.5)
    half = view.scale(48, 96)
    assert half.cell_centre(1, 2, (6, 6)) == ((96 + 8.5 + 32) / 2, 16.5 / 2)
    rows, columns, cut = view.crop()
    assert (rows, columns) == (slice(0, 96), slice(96, 192))
    assert cut.cell_centre(1, 2, (6, 6)) == (8.5 + 32, 16.5)
    # Cells about -7.5 .. 8.5 .. of an input whose upper 16 pixels are padding: the first row shows padding alone.
    padded = View((80, 96), (96, 96), (0.0, -16.0, 96.0, 80.0), Placement((0.5, 0.5), (16.0, 16.0)))
    assert padded.visible_cells((6, 6))[:, 0].tolist() == [False, True, True, True, True, True]
    assert padded.visible_window((6, 6)) == (slice(1, 6), slice(0, 6))


@pytest.mark.parametrize("padding", [RESNET, TF, VALID])
def test_large_inputs_are_measured_at_a_smaller_size(padding):
    chain, sizes = Chain(*padding), set()
    chain.register_forward_pre_hook(lambda _module, inputs: sizes.add(tuple(inputs[0].shape[2:])))
    explain = Explainer(chain, layers=["last"])
    explain.check(torch.rand(1, 3, 600, 480))
    # Strides that are no power of two by the size are counted at a size larger by 128, and not at the least.
    assert sizes - {(600 - 128, 480 - 128)} == {(600, 480), (600 - 3 * 128, 480 - 3 * 128), (600 - 256, 480 - 256)}
    first, stride = by_arithmetic([(padding[0], 2, padding[1])] * 4)
    placement = explain.locations["last"].placement or Placement.even(explain.locations["last"].grid, (600, 480))
    assert placement.stride == (stride, stride)
    assert placement.first == pytest.approx((first, first), abs=1.5)


def heard(module):
    """Of each forward how many images a module was given, and their height; grows."""
    found = []
    module.register_forward_pre_hook(lambda _module, inputs: found.append((len(inputs[0]), inputs[0].shape[2])))
    return found


def test_a_small_input_is_enough_where_a_few_lines_leave_no_doubt():
    torch.manual_seed(0)
    network = timm.create_model("regnety_002").eval()
    explain, given, behind = Explainer(network, layers=["s4"]), heard(network), heard(network.head.global_pool)
    explain.check(torch.rand(1, 3, 224, 224))
    # The image; it and another; it for its gradient and map; and three lines of 224 - 128 pixels, nothing behind them.
    assert given == [(1, 224), (2, 224), (1, 224), (3, 96)]
    assert len(behind) == 3
    located = explain.locations["s4"]
    assert located.grid == (7, 7)
    # Five strided convolutions of 3 x 3 whose padding lies before them, by hand: the first cell looks at 0.5.
    first, stride = by_arithmetic([(3, 2, 1)] * 5)
    assert near(located.placement, first, stride)


def test_where_a_small_input_leaves_doubt_the_whole_one_is_measured():
    torch.manual_seed(0)
    chain = Chain(*RESNET)
    explain, given = Explainer(chain, layers=["last"]), heard(chain)
    explain.check(torch.rand(1, 3, 224, 224))
    # Four channels: with 96 pixels the standard error is above a hundredth of the stride.
    assert [one for one in given if one[1] == 96] == [(3, 96)]
    assert (4, 224) in given
    assert near(explain.locations["last"].placement, 0.5, 16)


def test_a_layers_place_does_not_depend_on_what_other_layers_are_asked_for():
    torch.manual_seed(0)
    chain = Chain(3, 0, 1, squeeze=True)
    asked = (["last"], ["convs.2", "last"], ["last", "convs.2"], ["convs.0", "convs.1", "convs.2", "convs.3", "last"])
    places = []
    for layers in asked:
        explain = Explainer(chain, layers=layers)
        explain.check(torch.rand(1, 3, 96, 96))
        places.append(explain.locations["last"])
    assert places[0].placement
    assert places[1:] == places[:1] * 3


class Blind(Chain):
    """Its stem runs without a graph."""

    def forward(self, images):
        with torch.no_grad():
            features = self.convs[0](images)
        return self.last(self.convs[1](features)).mean((2, 3))


def test_where_a_layer_looks_is_said_where_it_cannot_be_measured():
    explain = Explainer(Blind(*RESNET), layers=["last"])
    [[one]] = explain(torch.rand(1, 3, 32, 32), 0)
    assert one.placement is None
    assert explain.locations["last"].unknown_reason == "no gradient flows from it to the input"
    assert any("the receptive fields of the layer 'last' cannot be located" in note for note in explain.notes)


def test_groups_are_measured_as_groups():
    class Together(Chain):
        def forward(self, images):
            assert len(images) == 3
            return super().forward(images)

    explain = Explainer(Together(*RESNET), layers=["last"], group=True)
    explain(torch.rand(3, 3, 96, 96), 0)
    assert near(explain.locations["last"].placement, 0.5, 16)


def test_what_is_said_of_places():
    chain = Explainer(Chain(*RESNET), layers=["last"])
    chain(torch.rand(1, 3, 96, 96), 0)
    [note] = describe_locations(chain.locations, (96, 96))
    y, x = chain.locations["last"].offset
    assert (y, x) == pytest.approx((7.5, 7.5), abs=1)
    assert f"shifted by {x:g} pixels left and {y:g} pixels up from an even grid of 16x16 pixels a cell" in note
    assert note in chain.notes
    uneven = Explainer(Chain(*VALID), layers=["last"])
    uneven(torch.rand(1, 3, 95, 95), 0)
    [note] = describe_locations(uneven.locations, (95, 95))
    assert (
        "the 5x5 cells of last do not divide 95x95 evenly: they are drawn at their receptive fields, 16 pixels apart"
        in note
    )
    even = Explainer(Chain(*RESNET), layers=["last"], placement="even")
    even(torch.rand(1, 3, 96, 96), 0)
    assert even.locations == {}
