"""Laws of the methods that query the network again: no mixing, no order, mirrored maps, and linear scores."""

import gc
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from by_hand import close, evidence, total
from networks import pictures
from plain_signals import Asked, Two, asking

from camcli.methods.cells import recipro_cam
from camcli.methods.masking import ablation_cam, gscorecam, is_cam, occlusion, rise, scorecam, ss_cam
from camcli.methods.optimised import opti_cam
from camcli.methods.pixel import fullgrad, input_x_gradient, integrated_gradients, saliency, smoothgrad
from camcli.methods.sensitivity import hsic, sobol

# Each is called with evidence as its attributes; where it draws, it draws little.
CALLS = {
    "scorecam": lambda e: scorecam(e.act, e.images, e.score_of),
    "scorecam-signed": lambda e: scorecam(e.act, e.images, e.score_of, softmax=False),
    "gscorecam": lambda e: gscorecam(e.act, e.grad, e.images, e.score_of, top=3),
    "ss-cam": lambda e: ss_cam(e.act, e.images, e.score_of, samples=3),
    "ss-cam-image": lambda e: ss_cam(e.act, e.images, e.score_of, samples=3, on="image"),
    "is-cam": lambda e: is_cam(e.act, e.images, e.score_of, samples=4),
    "opti-cam": lambda e: opti_cam(e.act, e.images, e.score_and_grad, steps=5),
    "ablation-cam": lambda e: ablation_cam(e.act, e.score, e.score_from_layer),
    "ablation-cam-norm": lambda e: ablation_cam(e.act, e.score, e.score_from_layer, per="norm"),
    "recipro-cam": lambda e: recipro_cam(e.act, e.score_from_layer),
    "recipro-cam-cell": lambda e: recipro_cam(e.act, e.score_from_layer, mask="cell"),
    "occlusion": lambda e: occlusion(e.images, e.score, e.score_of, window=3, stride=2),
    "rise": lambda e: rise(e.images, e.score_of, samples=50, cells=3),
    "sobol": lambda e: sobol(e.images, e.score_of, designs=8, cells=3),
    "hsic": lambda e: hsic(e.images, e.score_of, samples=40, cells=3),
    "saliency": lambda e: saliency(e.input_grad),
    "input-x-gradient": lambda e: input_x_gradient(e.images, e.input_grad),
    "smoothgrad": lambda e: smoothgrad(e.images, e.score_and_grad, samples=3),
    "integrated-gradients": lambda e: integrated_gradients(e.images, e.score_and_grad, steps=5),
    "fullgrad": lambda e: fullgrad(e.images, e.input_grad, e.biases),
}
CHANNELS = [
    "scorecam",
    "scorecam-signed",
    "gscorecam",
    "ss-cam",
    "ss-cam-image",
    "is-cam",
    "opti-cam",
    "ablation-cam",
    "recipro-cam",
]
# Their noise and masks lie as they lie, however the image is turned.
DRAWN = {"ss-cam", "ss-cam-image", "rise", "sobol", "hsic", "smoothgrad"}


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


# Each variant of opti-cam depends on the score of the one before.
ASKS = [name for name in CALLS if name not in ("saliency", "input-x-gradient", "fullgrad", "opti-cam")]


@pytest.mark.slow
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


def test_recipro_cam_of_pooling_and_a_linear_head_is_cam_min_maxed():
    e = evidence()
    weights = torch.linspace(-1, 2, 6, dtype=torch.float64)
    cam = torch.einsum("k,nkhw->nhw", weights, e.act)
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    rest = asking(lambda act: (weights * act.mean((2, 3))).sum(1) + 3)
    close(recipro_cam(e.act, rest, mask="cell"), (cam - low) / (high - low))


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
