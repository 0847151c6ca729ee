"""Methods that mask the image or a channel: their numbers by hand, their windows and masks."""

import itertools
import math

import pytest
import torch
from by_hand import EXACT, IMAGE, equal, layer, red, squares, total
from plain_signals import asking, sloping

from camcli import RequestError
from camcli.methods.cells import recipro_cam
from camcli.methods.masking import (
    ablation_cam,
    gscorecam,
    is_cam,
    occlusion,
    place_windows,
    rise,
    scorecam,
    ss_cam,
)
from camcli.methods.pixel import integrated_gradients, smoothgrad

# Min-maxed, the first is itself, the second [[0, 0], [1, 0]]; the third has no range.
# Of the image they leave 2 and 3. So S = (2, 3).
FIRST, SECOND, FLAT = [[0, 1], [0, 0]], [[2, 2], [4, 2]], [[7, 7], [7, 7]]
ACT = layer(FIRST, SECOND, FLAT)


def test_scorecam_by_hand():
    # 2 * first + 3 * second; the flat third has no part.
    equal(scorecam(ACT, IMAGE, asking(total), softmax=False), [6, 8], [12, 6])
    # Weights 1 / (1 + e) and e / (1 + e).
    small, great = 1 / (1 + math.e), math.e / (1 + math.e)
    equal(scorecam(ACT, IMAGE, asking(total)), [2 * great, small + 2 * great], [4 * great, 2 * great])


def test_scorecam_min_maxes_after_upsampling():
    # From 3 columns to 6 bilinearly, [0, 1, 0] becomes [0, 1/4, 3/4, 3/4, 1/4, 0]; its greatest is 3/4, so
    # H = [0, 1/3, 1, 1, 1/3, 0]. The image [1, 2, 3, 4, 5, 6] under it sums to 2/3 + 3 + 4 + 5/3 = 28/3.
    map = scorecam(layer([[0, 1, 0]]), red([1, 2, 3, 4, 5, 6]), asking(total), softmax=False)
    equal(map, [0, 28 / 3, 0])


def test_scorecam_of_flat_channels_is_no_map():
    assert scorecam(layer(FLAT, FLAT), IMAGE, asking(total)).isnan().all()
    assert scorecam(layer(FLAT), IMAGE, asking(total), softmax=False).isnan().all()
    # And in a batch of which one has a map.
    act = torch.cat([layer(FLAT, FLAT, FLAT), ACT])
    for softmax in (True, False):
        map = scorecam(act, IMAGE.repeat(2, 1, 1, 1), asking(total), softmax=softmax)
        assert map[0].isnan().all()
        torch.testing.assert_close(map[1:], scorecam(ACT, IMAGE, asking(total), softmax=softmax), **EXACT)


def test_rounding_does_not_make_a_flat_channel_a_mask():
    noise = 1 + 1e-15 * torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    assert (7 * noise != 7).any()
    act = torch.cat([ACT[:, :2], 7 * noise[None, None]], 1)
    equal(scorecam(act, IMAGE, asking(total), softmax=False), [6, 8], [12, 6])


def test_gscorecam_by_hand():
    # Mean gradients 1, 2 and -5: the second, then the first.
    grad = layer([[1, 1], [1, 1]], [[8, 0], [0, 0]], [[-5, -5], [-5, -5]])
    equal(gscorecam(ACT, grad, IMAGE, asking(total), top=1, softmax=False), [6, 6], [12, 6])
    equal(gscorecam(ACT, grad, IMAGE, asking(total), top=1), [2, 2], [4, 2])
    # With as many as there are, it is Score-CAM.
    for top in (3, 300):
        equal(gscorecam(ACT, grad, IMAGE, asking(total), top=top, softmax=False), [6, 8], [12, 6])


def test_ss_cam_by_hand():
    # The score of X * (H + noise) is linear in the noise: S grows by the mean over samples of sum(X * noise).
    source = torch.Generator().manual_seed(7)
    noise = sum(0.5 * torch.randn(1, 1, 2, 2, generator=source).double() for _ in range(3)) / 3
    more = (IMAGE * noise).sum().item()
    map = ss_cam(ACT, IMAGE, asking(total), samples=3, sigma=0.5, softmax=False, seed=7)
    equal(map, [2 * (3 + more), (2 + more) + 2 * (3 + more)], [4 * (3 + more), 2 * (3 + more)])
    # Of X * H + noise it grows by the mean of sum(noise), of all colours.
    source = torch.Generator().manual_seed(7)
    more = sum(0.5 * torch.randn(1, 3, 2, 2, generator=source).double() for _ in range(3)).sum().item() / 3
    map = ss_cam(ACT, IMAGE, asking(total), samples=3, sigma=0.5, on="image", softmax=False, seed=7)
    equal(map, [2 * (3 + more), (2 + more) + 2 * (3 + more)], [4 * (3 + more), 2 * (3 + more)])


def test_is_cam_by_hand():
    # The sum of squares of what the masks leave is 4 and 9; faded to a share s of itself it is s^2 of that.
    # N = 3 goes through 0, 1/3 and 1: (0 + 1/9 + 1) / 3 = 10/27.
    map = is_cam(ACT, IMAGE, asking(squares), samples=3, softmax=False)
    share = 10 / 27
    equal(map, [18 * share, 22 * share], [36 * share, 18 * share])
    # N = 2, straight, goes through 1/2 and 1: (1/4 + 1) / 2 = 5/8.
    map = is_cam(ACT, IMAGE, asking(squares), samples=2, path="straight", softmax=False)
    equal(map, [18 * 5 / 8, 22 * 5 / 8], [36 * 5 / 8, 18 * 5 / 8])


def test_ablation_cam_by_hand():
    # y = sum(weights * A): 1 + 4 from the first channel, -1 - 1 from the second: 3. Without the first it is -2,
    # without the second 5, so the weights are 5/3 and -2/3; the third is 0 already and is not asked about.
    act = layer([[1, 2], [3, 4]], [[0, 1], [1, 0]], [[0, 0], [0, 0]])
    weights = layer([[1, 0], [0, 1]], [[-1, -1], [-1, 1]], [[9, 9], [9, 9]])
    asked = []

    def rest(variants):
        for variant in variants:
            asked.append(variant)
            yield (weights * variant).sum((1, 2, 3))

    score = torch.tensor([3.0], dtype=torch.float64)
    equal(ablation_cam(act, score, rest), [5 / 3, 8 / 3], [13 / 3, 20 / 3])
    assert len(asked) == 2
    # Per norm: 5 / sqrt(1 + 4 + 9 + 16) and -2 / sqrt(2).
    first, second = 5 / math.sqrt(30), -2 / math.sqrt(2)
    equal(ablation_cam(act, score, rest, per="norm"), [first, 2 * first + second], [3 * first + second, 4 * first])
    # Where the score is 0 there is no map.
    assert not ablation_cam(act, torch.zeros(1, dtype=torch.float64), rest).isfinite().any()


def test_recipro_cam_by_hand():
    # y = the sum of weights * A + 7: cell by cell (1, 2), (6, -4) + 7, from the lowest, 3, to the highest, 13.
    act = layer([[1, 2], [3, 4]], [[0, 0], [0, 0]])
    weights = layer([[1, 1], [2, -1]], [[9, 9], [9, 9]])
    rest = asking(lambda a: (weights * a).sum((1, 2, 3)) + 7)
    equal(recipro_cam(act, rest, mask="cell"), [5 / 10, 6 / 10], [1, 0])
    # Gaussian: a quarter of the cell itself, an eighth of those beside it, a sixteenth of those across, where there are
    # such: 16 y = 4 + 4 + 12 - 4, 2 + 8 + 6 - 8, 2 + 2 + 24 - 8, 1 + 4 + 12 - 16, each + 112.
    equal(recipro_cam(act, rest), [15 / 19, 7 / 19], [1, 0])
    # Where all cells have the same score there is no map.
    assert not recipro_cam(act, asking(lambda a: 0 * a.sum((1, 2, 3)) + 1)).isfinite().any()


def test_ablation_cam_turns_over_where_the_score_is_negative():
    act, rest = layer([[1.0, 2.0]]), asking(lambda a: a.sum((1, 2, 3)) - 10)
    score = act.sum((1, 2, 3)) - 10
    # y = -7, without the channel -10: it speaks for the class, but (y - y_0) / y = 3 / -7.
    equal(ablation_cam(act, score, rest), [-3 / 7, -6 / 7])
    equal(ablation_cam(act, score, rest, per="norm"), [3 / math.sqrt(5), 6 / math.sqrt(5)])


def test_occlusion_by_hand():
    image = red([1, 2, 3], [4, 5, 6])
    score = total(image)
    equal(occlusion(image, score, asking(total), window=1, stride=1), [1, 2, 3], [4, 5, 6])
    # The left window hides 1 + 2 + 4 + 5 = 12, the right one 2 + 3 + 5 + 6 = 16; the middle column is under both.
    equal(occlusion(image, score, asking(total), window=2, stride=1), [12, 14, 16], [12, 14, 16])
    # Filled with 1, its 4 pixels of 3 colours give 12 back.
    equal(occlusion(image, score, asking(total), window=2, stride=1, value=1.0), [0, 2, 4], [0, 2, 4])
    # A window is never larger than the image.
    equal(occlusion(image, score, asking(total), window=9), [12, 14, 16], [12, 14, 16])


def test_occlusions_windows():
    assert place_windows(224, 32, 16) == list(range(0, 193, 16))
    assert place_windows(3, 3, 1) == [0]
    # 209 pixels, at most 8 apart: 27 steps.
    assert len(place_windows(224, 15, 8)) == 28
    for side in range(1, 40):
        for window in range(1, side + 1):
            for stride in range(1, 12):
                starts = place_windows(side, window, stride)
                assert starts[0] == 0
                assert starts[-1] == side - window
                assert [side - window - start for start in reversed(starts)] == starts
                gaps = [after - before for before, after in itertools.pairwise(starts)]
                assert all(0 < gap <= stride for gap in gaps)


def test_rise_by_hand():
    # Every cell open: every mask is 1, so each pixel gets y = 1 + 2 + 3 + 4 + 5.
    equal(rise(IMAGE, asking(total), samples=40, cells=2, p=1.0), [15, 15], [15, 15])
    # One cell: a mask is 1 everywhere or 0 everywhere, and only the ones that are open count; of them y is 15.
    # The first numbers of the generator say how many of the first 20 cells are below p.
    open_cells = (torch.rand(32, generator=torch.Generator().manual_seed(3))[:20] < 0.25).sum().item()
    assert 0 < open_cells < 20
    value = 15 * open_cells / (20 * 0.25)
    equal(rise(IMAGE, asking(total), samples=20, cells=1, p=0.25, seed=3), [value, value], [value, value])


def test_rise_centred_by_hand():
    # Every mask is the same, so every score is the mean one. With one cell an open mask scores 15, a closed one 5.
    equal(rise(IMAGE, asking(total), samples=40, cells=2, p=1.0, center=True), [0, 0], [0, 0])
    open_cells = (torch.rand(32, generator=torch.Generator().manual_seed(3))[:20] < 0.25).sum().item()
    mean = (15 * open_cells + 5 * (20 - open_cells)) / 20
    value = (15 - mean) * open_cells / (20 * 0.25)
    map = rise(IMAGE, asking(total), samples=20, cells=1, p=0.25, seed=3, center=True)
    equal(map, [value, value], [value, value])


def test_rises_masks():
    seen = []

    def keep(variants):
        for variant in variants:
            seen.append(variant[0, 0])
            yield torch.zeros(1)

    rise(torch.ones(1, 3, 20, 14), keep, samples=500, cells=7)
    masks = torch.stack(seen)
    assert masks.shape == (500, 20, 14)
    assert masks.min() >= 0
    assert masks.max() <= 1
    # Each pixel is open half of the time, as the estimator takes it to be.
    assert (masks.mean(0) - 0.5).abs().max() < 0.12
    # The first masks are the same however many are asked for.
    before = masks[:40].clone()
    seen.clear()
    rise(torch.ones(1, 3, 20, 14), keep, samples=40, cells=7)
    assert torch.equal(torch.stack(seen), before)


def test_options_out_of_range_are_refused():
    nothing = asking(total)
    for call in (
        lambda: gscorecam(ACT, ACT, IMAGE, nothing, top=0),
        lambda: ss_cam(ACT, IMAGE, nothing, samples=0),
        lambda: ss_cam(ACT, IMAGE, nothing, sigma=-1.0),
        lambda: is_cam(ACT, IMAGE, nothing, samples=1),
        lambda: is_cam(ACT, IMAGE, nothing, samples=0, path="straight"),
        lambda: occlusion(IMAGE, torch.zeros(1), nothing, stride=-1),
        lambda: rise(IMAGE, nothing, samples=0),
        lambda: rise(IMAGE, nothing, p=0.0),
        lambda: smoothgrad(IMAGE, sloping(total), samples=0),
        lambda: smoothgrad(IMAGE, sloping(total), sigma=math.nan),
        lambda: integrated_gradients(IMAGE, sloping(total), steps=0),
    ):
        with pytest.raises(RequestError, match="is out of range"):
            call()
