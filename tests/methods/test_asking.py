"""The methods that ask again, and those at the input: their numbers by hand, and their laws.

They are called with the evidence itself; that the explainer hands it to them is for other tests.
"""

import gc
import itertools
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from asked import Asked, Two, asking, sloping
from networks import pictures

from camcli import RequestError
from camcli.methods.backprop import deconvnet
from camcli.methods.masking import _window_starts, ablation_cam, gscorecam, is_cam, occlusion, rise, scorecam, ss_cam
from camcli.methods.pixel import fullgrad, input_x_gradient, integrated_gradients, saliency, smoothgrad

EXACT = {"rtol": 0, "atol": 1e-12}


def total(x):
    """The sum of all pixels of each image, and 5, which is what the empty image gives."""
    return x.sum((1, 2, 3)) + 5


def squares(x):
    return x.square().sum((1, 2, 3)) + 5


def red(*rows):
    """One image (1, 3, h, w) that is black but for its red."""
    image = torch.zeros(1, 3, len(rows), len(rows[0]), dtype=torch.float64)
    image[0, 0] = torch.tensor(rows)
    return image


def layer(*maps):
    return torch.tensor([maps], dtype=torch.float64)


def equal(map, *wanted):
    torch.testing.assert_close(map, torch.tensor([wanted], dtype=torch.float64), **EXACT)


# ---- by hand

IMAGE = red([1, 2], [3, 4])
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
    assert _window_starts(224, 32, 16) == list(range(0, 193, 16))
    assert _window_starts(3, 3, 1) == [0]
    # 209 pixels, at most 8 apart: 27 steps.
    assert len(_window_starts(224, 15, 8)) == 28
    for side in range(1, 40):
        for window in range(1, side + 1):
            for stride in range(1, 12):
                starts = _window_starts(side, window, stride)
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


def test_saliency_by_hand():
    grad = torch.tensor([[[[1.0, -2.0]], [[-3.0, 1.0]], [[0.0, 0.0]]]])
    assert saliency(grad).tolist() == [[[3, 2]]]


def test_input_x_gradient_by_hand():
    grad = torch.tensor([[[[1.0, -2.0]], [[-3.0, 1.0]], [[0.0, 5.0]]]])
    image = torch.tensor([[[[2.0, 1.0]], [[1.0, -1.0]], [[9.0, 0.0]]]])
    assert input_x_gradient(image, grad).tolist() == [[[[2, -2]], [[-3, -1]], [[0, 0]]]]


def test_smoothgrad_by_hand():
    # The gradient of the sum of squares is 2 X, of the noisy copies 2 X + 2 * spread * noise; X reaches from 0 to 4.
    source = torch.Generator().manual_seed(5)
    noise = sum(torch.randn(1, 3, 2, 2, generator=source).double() for _ in range(4)) / 4
    map = smoothgrad(IMAGE, sloping(squares), samples=4, sigma=0.25, seed=5)
    torch.testing.assert_close(map, 2 * IMAGE + 2 * 0.25 * 4 * noise, **EXACT)


def test_integrated_gradients_by_hand():
    # The gradient of x^2 on the way from 0 to x is 2 t x; its mean is x, times x is x^2: 1, 4, 9 and 16.
    wanted = red([1, 4], [9, 16])
    for rule in ("gauss", "midpoint"):
        torch.testing.assert_close(integrated_gradients(IMAGE, sloping(squares), steps=1, rule=rule), wanted, **EXACT)
    # The right sum of two steps takes t = 1/2 and 1, whose mean is 3/4 and not 1/2: half too much.
    map = integrated_gradients(IMAGE, sloping(squares), steps=2, rule="right")
    torch.testing.assert_close(map, 1.5 * wanted, **EXACT)
    # From 1 to x: (x - 1) times the mean of 2 x and 2: x^2 - 1, for the black colours too.
    map = integrated_gradients(IMAGE, sloping(squares), baseline=1.0)
    torch.testing.assert_close(map, IMAGE.square() - 1, **EXACT)


def test_fullgrad_by_hand():
    # X * g is [[0, -2], [1, 4]]: 0, 1/2, 1/4 and 1. The bias's [3, -1] is [3, 1] in size: 1 and 0, in each row.
    image, grad = red([0, 2], [1, 4]), red([9, -1], [1, 1])
    row = layer([[3, -1]])
    equal(fullgrad(image, grad, [row]), [1, 0.5], [1.25, 1])
    # A bias without a place has no part; a map that is the same everywhere has none either.
    equal(fullgrad(image, grad, [row, torch.ones(1, 4).double(), layer([[6, 6]])]), [1, 0.5], [1.25, 1])
    # As one layer, [3, 1] and [5, 5] reach from 1 to 5: [1/2, 0] and [1, 1].
    both = layer([[3, -1]], [[5, -5]])
    equal(fullgrad(image, grad, [both], rescale="layer"), [1.5, 1.5], [1.75, 2])
    equal(fullgrad(image, grad, [both], rescale="none"), [8, 8], [9, 10])


def test_deconvnet_by_hand():
    grad = torch.tensor([2.0, -3.0, 4.0, 0.0, -1.0])
    passes = torch.tensor([True, True, False, True, False])
    # Unlike guided backprop, the 4 passes a closed ReLU.
    assert deconvnet(grad, passes).tolist() == [2, 0, 4, 0, 0]


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


# ---- laws

# Each is called with evidence as its attributes; where it draws, it draws little.
CALLS = {
    "scorecam": lambda e: scorecam(e.act, e.images, e.score_of),
    "scorecam-signed": lambda e: scorecam(e.act, e.images, e.score_of, softmax=False),
    "gscorecam": lambda e: gscorecam(e.act, e.grad, e.images, e.score_of, top=3),
    "ss-cam": lambda e: ss_cam(e.act, e.images, e.score_of, samples=3),
    "ss-cam-image": lambda e: ss_cam(e.act, e.images, e.score_of, samples=3, on="image"),
    "is-cam": lambda e: is_cam(e.act, e.images, e.score_of, samples=4),
    "ablation-cam": lambda e: ablation_cam(e.act, e.score, e.score_from_layer),
    "ablation-cam-norm": lambda e: ablation_cam(e.act, e.score, e.score_from_layer, per="norm"),
    "occlusion": lambda e: occlusion(e.images, e.score, e.score_of, window=3, stride=2),
    "rise": lambda e: rise(e.images, e.score_of, samples=50, cells=3),
    "saliency": lambda e: saliency(e.input_grad),
    "input-x-gradient": lambda e: input_x_gradient(e.images, e.input_grad),
    "smoothgrad": lambda e: smoothgrad(e.images, e.score_and_grad, samples=3),
    "integrated-gradients": lambda e: integrated_gradients(e.images, e.score_and_grad, steps=5),
    "fullgrad": lambda e: fullgrad(e.images, e.input_grad, e.biases),
}
CHANNELS = ["scorecam", "scorecam-signed", "gscorecam", "ss-cam", "ss-cam-image", "is-cam", "ablation-cam"]
# Their noise and masks lie as they lie, however the image is turned.
DRAWN = {"ss-cam", "ss-cam-image", "rise", "smoothgrad"}


def evidence(count=3, size=(8, 10), pool=2):
    return Asked(Two(pool), pictures(count, size), [0, 3, 1, 2][:count])


def close(map, wanted):
    assert map.shape == wanted.shape
    assert map.dtype == wanted.dtype
    scale = wanted.abs().max()
    assert scale > 0
    assert (map - wanted).abs().max() <= 1e-10 * scale


@pytest.mark.parametrize("name", CALLS)
def test_samples_do_not_mix(name):
    together = CALLS[name](evidence())
    model, images = Two(), pictures(3, (8, 10))
    for row, index in enumerate([0, 3, 1]):
        close(CALLS[name](Asked(model, images[row : row + 1], [index])), together[row : row + 1])


@pytest.mark.parametrize("name", CHANNELS)
def test_the_order_of_channels_is_irrelevant(name):
    model = Two()
    images = pictures(2, (8, 10))
    wanted = CALLS[name](Asked(model, images, [0, 3]))
    order = [4, 2, 0, 5, 1, 3]
    with torch.no_grad():
        for part in (model.features[4].weight, model.features[4].bias):
            part.copy_(part[order].clone())
        # The head's 24 features are 4 places of each channel.
        columns = [4 * channel + place for channel in order for place in range(4)]
        model.head[3].weight.copy_(model.head[3].weight[:, columns].clone())
    close(CALLS[name](Asked(model, images, [0, 3])), wanted)


@pytest.mark.parametrize("name", sorted(CALLS.keys() - DRAWN))
def test_a_mirrored_picture_has_the_mirrored_map(name):
    model, mirrored = Two(), Two()
    with torch.no_grad():
        for conv in (0, 4):
            mirrored.features[conv].weight.copy_(model.features[conv].weight.flip(-1))
        turned = model.head[3].weight.reshape(4, 6, 2, 2).flip(-1)
        mirrored.head[3].weight.copy_(turned.reshape(4, 24))
    images = pictures(2, (8, 12))
    map = CALLS[name](Asked(model, images, [0, 3]))
    close(CALLS[name](Asked(mirrored, images.flip(-1), [0, 3])), map.flip(-1))
    assert (map - map.flip(-1)).abs().max() > 0.1 * map.abs().max()


def watched(ahead):
    """Signals that ask again, reading ahead, and what they saw: [drawn, answered, most alive at once]."""
    seen = {"drawn": 0, "answered": 0, "alive": 0, "ahead": 0}
    alive = weakref.WeakSet()

    def reading(answer):
        def ask(variants):
            variants = iter(variants)
            while True:
                batch = []
                while len(batch) < ahead and (variant := next(variants, None)) is not None:
                    seen["drawn"] += 1
                    alive.add(variant)
                    batch.append(variant)
                    variant = None
                    seen["alive"] = max(seen["alive"], len(alive))
                if not batch:
                    return
                answers = list(answer(batch))
                batch.clear()
                for one in answers:
                    seen["ahead"] = max(seen["ahead"], seen["drawn"] - seen["answered"])
                    seen["answered"] += 1
                    yield one

        return ask

    return seen, reading


ASKS = [name for name in CALLS if name not in ("saliency", "input-x-gradient", "fullgrad")]


@pytest.mark.parametrize("ahead", [1, 3, 1000])
@pytest.mark.parametrize("name", ASKS)
def test_variants_are_drawn_as_they_are_asked_for_and_not_kept(name, ahead):
    plain = evidence()
    wanted = CALLS[name](plain)
    gc.collect()
    seen, read_ahead = watched(ahead)
    plain.score_of, plain.score_from_layer, plain.score_and_grad = map(
        read_ahead, (plain.score_of, plain.score_from_layer, plain.score_and_grad)
    )
    # Read one by one or all ahead of the first answer, the map is the same.
    assert torch.equal(CALLS[name](plain), wanted)
    assert seen["drawn"] == seen["answered"] > 2
    assert seen["ahead"] <= ahead
    # The last of a batch may still be in the generator's hand.
    assert seen["alive"] <= min(ahead, seen["drawn"]) + 1


def test_ss_cam_without_noise_is_scorecam():
    e = evidence()
    wanted = scorecam(e.act, e.images, e.score_of)
    for on in ("mask", "image"):
        close(ss_cam(e.act, e.images, e.score_of, samples=2, sigma=0.0, on=on), wanted)
        assert (ss_cam(e.act, e.images, e.score_of, samples=2, on=on) - wanted).abs().max() > 0.01 * wanted.abs().max()


def test_ss_cam_of_a_linear_score_is_scorecam():
    # The same noise adds the same to every channel, and softmax does not see it.
    e = evidence()
    weights = pictures(1, (8, 10), seed=9)

    def linear(x):
        return (weights * x).sum((1, 2, 3))

    close(ss_cam(e.act, e.images, asking(linear)), scorecam(e.act, e.images, asking(linear)))


def test_is_cam_in_one_straight_step_is_scorecam():
    e = evidence()
    wanted = scorecam(e.act, e.images, e.score_of)
    close(is_cam(e.act, e.images, e.score_of, samples=1, path="straight"), wanted)


def test_is_cam_of_a_linear_score_is_scorecam_times_a_factor():
    # The mean of i (i - 1) / 2N over i is (N^2 - 1) / 6N, for N = 10 1.65; of i / N it is (N + 1) / 2N, 0.55.
    e = evidence()
    wanted = scorecam(e.act, e.images, asking(total), softmax=False)
    close(is_cam(e.act, e.images, asking(total), softmax=False), 1.65 * wanted)
    close(is_cam(e.act, e.images, asking(total), path="straight", softmax=False), 0.55 * wanted)


def test_gscorecam_of_all_channels_is_scorecam():
    e = evidence()
    close(gscorecam(e.act, e.grad, e.images, e.score_of), scorecam(e.act, e.images, e.score_of))


def test_ablation_cam_of_a_linear_head_without_bias_is_gradcam_up_to_scale():
    # y = sum_k w_k mean A_k, so y - y_k is w_k mean A_k: the gradient's mean times the sum of A_k.
    e = evidence()
    weights = torch.linspace(-1, 2, 6, dtype=torch.float64)
    score = (weights * e.act.mean((2, 3))).sum(1)
    rest = asking(lambda act: (weights * act.mean((2, 3))).sum(1))
    shares = weights * e.act.mean((2, 3)) / score[:, None]
    close(ablation_cam(e.act, score, rest), (shares[:, :, None, None] * e.act).sum(1))


def test_occlusion_of_a_linear_score_is_the_windows_sum():
    weights, images = pictures(1, 12, seed=9), pictures(2, 12)

    def linear(x):
        return (weights * x).sum((1, 2, 3)) + 3

    sums = F.avg_pool2d((weights * images).sum(1, keepdim=True), 4, 2) * 16
    # Put back where each window was, and divided by how many cover a pixel.
    put = F.conv_transpose2d(sums, torch.ones(1, 1, 4, 4, dtype=torch.float64), stride=2)
    count = F.conv_transpose2d(torch.ones_like(sums), torch.ones(1, 1, 4, 4, dtype=torch.float64), stride=2)
    close(occlusion(images, linear(images), asking(linear), window=4, stride=2), (put / count)[:, 0])


def test_occlusions_defaults_suit_the_size():
    asked = []

    def keep(variants):
        for variant in variants:
            asked.append(int((variant[0, 0] == 0).sum()))
            yield torch.zeros(1)

    occlusion(torch.ones(1, 3, 224, 224), torch.zeros(1), keep)
    assert asked == [32 * 32] * 169


def test_rise_of_a_linear_score_tends_to_its_expectation():
    # M = sum_c g_c U_c over the cells c, the g independent with mean p, the U of all cells summing to 1. So
    # E[M(a) M(b)] = p^2 + p (1 - p) mean over shifts of sum_c U_c(a) U_c(b), and with y = sum_a v(a) X(a) the map tends
    # to 1/p sum_a v(a) X(a) E[M(a) M(b)] = p y + (1 - p) sum_a v(a) X(a) mean sum_c U_c(a) U_c(b).
    cells, side, p = 2, 6, 0.3
    weights, images = pictures(1, side, seed=9), pictures(2, side)

    def linear(x):
        return (weights * x).sum((1, 2, 3))

    units = torch.eye(cells * cells, dtype=torch.float64).reshape(-1, 1, cells, cells)
    grown = F.interpolate(units, (9, 9), mode="bilinear", align_corners=False)[:, 0]
    shifted = [grown[:, top : top + side, left : left + side].flatten(1) for top in range(3) for left in range(3)]
    overlap = sum(unit.T @ unit for unit in shifted) / 9
    parts = (weights * images).sum(1).flatten(1)
    wanted = (p * parts.sum(1, keepdim=True) + (1 - p) * parts @ overlap).reshape(2, side, side)

    def error(samples, seed=0):
        map = rise(images, asking(linear), samples=samples, cells=cells, p=p, seed=seed)
        return ((map - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()).item()

    few = math.sqrt(sum(error(200, seed) ** 2 for seed in range(20)) / 20)
    # A hundred times as many, a tenth of the error; some play for chance.
    assert error(20_000) < 0.2 * few < 0.04


def test_smoothgrad_without_noise_is_the_gradient():
    e = evidence()
    close(smoothgrad(e.images, e.score_and_grad, samples=1, sigma=0.0), e.input_grad)
    close(smoothgrad(e.images, e.score_and_grad, samples=3, sigma=0.0), e.input_grad)


def test_integrated_gradients_of_a_quadratic_are_complete():
    images = pictures(2, 6)
    forms, weights = pictures(1, 6, seed=4), pictures(1, 6, seed=5)

    def quadratic(x):
        # Neighbours mixed, so that it is no sum over pixels.
        return (forms * x * x.roll(1, -1) + weights * x).sum((1, 2, 3))

    for baseline in (0.0, -1.5):
        difference = quadratic(images) - quadratic(torch.full_like(images, baseline))
        for rule, steps in (("gauss", 1), ("midpoint", 1), ("gauss", 50), ("midpoint", 7)):
            map = integrated_gradients(images, sloping(quadratic), steps=steps, rule=rule, baseline=baseline)
            torch.testing.assert_close(map.sum((1, 2, 3)), difference, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", ["gauss", "midpoint", "right"])
def test_integrated_gradients_of_a_network_are_complete_in_the_limit(rule):
    e = evidence()
    (blank,) = e.score_of([torch.zeros_like(e.images)])
    difference = e.score - blank

    def gap(steps):
        map = integrated_gradients(e.images, e.score_and_grad, steps=steps, rule=rule)
        return ((map.sum((1, 2, 3)) - difference).abs() / difference.abs()).max()

    assert gap(50) < 0.05
    assert gap(1000) < 0.005


def test_fullgrad_is_complete_before_it_is_drawn():
    e = evidence()
    parts = [e.images * e.input_grad, *e.biases]
    # A convolution, the implicit bias of the batch norm, a convolution, the head.
    assert len(parts) == 5
    torch.testing.assert_close(sum(part.flatten(1).sum(1) for part in parts), e.score, rtol=0, atol=1e-12)
    # Not rescaled, the map holds the sizes of all that has a place; a layer of half the size is seen at four pixels.
    map = fullgrad(e.images, e.input_grad, e.biases, rescale="none")
    sizes = [part.abs().flatten(1).sum(1) * (4 if part.shape[2] == 4 else 1) for part in parts[:4]]
    torch.testing.assert_close(map.sum((1, 2)), sum(sizes), rtol=1e-12, atol=0)


def test_input_x_gradient_of_relus_without_biases_sums_to_the_score():
    model = Two()
    for part in (model.features[0], model.features[4], model.head[3]):
        torch.nn.init.zeros_(part.bias)
    model.features[1].running_mean.zero_()
    torch.nn.init.zeros_(model.features[1].bias)
    e = Asked(model, pictures(3, 8), [0, 1, 2])
    torch.testing.assert_close(input_x_gradient(e.images, e.input_grad).sum((1, 2, 3)), e.score, rtol=1e-10, atol=0)
