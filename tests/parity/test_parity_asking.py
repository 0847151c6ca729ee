"""The methods that ask again, and those at the input, against Captum, torchcam and pytorch-grad-cam, in float64.

Where a library deviates from the paper, a test says how: its numbers are met by the paper's formula with that one thing
changed, and are not the paper's. docs/deviations.md names these tests.
"""

import copy
import itertools
from pathlib import Path
from types import SimpleNamespace

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from asked import Asked, Two
from networks import pictures
from peers import pytorch_grad_cam, torchcam
from test_parity import fresh, replace

from camcli import Explainer
from camcli.methods.masking import ablation_cam, is_cam, occlusion, scorecam, ss_cam
from camcli.methods.pixel import fullgrad, input_x_gradient, integrated_gradients, saliency, smoothgrad

pytestmark = [
    pytest.mark.parity,
    # Captum's own: it says that it sets hooks on ReLUs and takes them off again.
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations"),
]

INDEX = [0, 3]


def evidence(pool=1, dead=False, size=(8, 12)):
    """A network, whose layer has the input's size if pool is 1, and all evidence of two images."""
    model = Two(pool)
    if dead:
        torch.nn.init.zeros_(model.features[4].weight[2])
    return Asked(model, pictures(2, size), INDEX)


def agree(ours, theirs, share=1e-9):
    """Within a share of each map's own scale; and it is not nothing."""
    theirs = theirs.detach().reshape(ours.shape)
    for one, other in zip(ours, theirs, strict=True):
        scale = other.abs().max()
        assert scale > 1e-3
        assert (one - other).abs().max() <= share * scale


def differ(ours, theirs):
    """By more than a thousandth."""
    assert (ours - theirs.reshape(ours.shape)).abs().max() > 1e-3 * theirs.abs().max()


def min_maxed(maps):
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-300)


def enlarged(maps, e, align_corners=False):
    return F.interpolate(maps, e.images.shape[2:], mode="bilinear", align_corners=align_corners)


def by_scores(e, masks, shares=(1.0,)):
    """Score-CAM written out, of any masks (n, c, H, W): each channel's mean score over shares, softmaxed; the sum."""
    scores = [sum(e.score_of(e.images * (share * mask[:, None]) for share in shares)) for mask in masks.unbind(1)]
    weights = (torch.stack(scores, 1) / len(shares)).softmax(1)
    return (weights[:, :, None, None] * e.act).sum(1)


# ---- Captum


def test_saliency_is_captums():
    e = evidence()
    captums = captum.attr.Saliency(e.model).attribute(e.images.clone().requires_grad_(), e.index)
    agree(saliency(e.input_grad), captums.amax(1))


def test_input_x_gradient_is_captums():
    e = evidence()
    captums = captum.attr.InputXGradient(e.model).attribute(e.images.clone().requires_grad_(), e.index)
    agree(input_x_gradient(e.images, e.input_grad), captums)


@pytest.mark.parametrize(
    ("rule", "method"), [("gauss", "gausslegendre"), ("midpoint", "riemann_middle"), ("right", "riemann_right")]
)
@pytest.mark.parametrize("baseline", [0.0, -1.5])
def test_integrated_gradients_are_captums(rule, method, baseline):
    e = evidence()
    captums = captum.attr.IntegratedGradients(e.model).attribute(
        e.images, baseline, target=e.index, n_steps=20, method=method
    )
    # Captum's weights of the steps are float32.
    agree(integrated_gradients(e.images, e.score_and_grad, steps=20, rule=rule, baseline=baseline), captums, 1e-6)


def test_our_default_quadrature_is_captums():
    e = evidence()
    captums = captum.attr.IntegratedGradients(e.model).attribute(e.images, target=e.index)
    agree(integrated_gradients(e.images, e.score_and_grad), captums, 1e-6)


@pytest.mark.parametrize("value", [0.0, 1.25])
def test_occlusion_is_captums_where_the_stride_fits(value):
    e = evidence()
    captums = captum.attr.Occlusion(e.model).attribute(e.images, (3, 4, 4), (3, 2, 2), baselines=value, target=e.index)
    map = occlusion(e.images, e.score, e.score_of, window=4, stride=2, value=value)
    # Of three colours hidden at once each gets the same.
    for colour in captums.unbind(1):
        # Captum's maps are float32 here.
        agree(map, colour.double(), 1e-6)


def test_captums_occlusion_cuts_its_last_windows_where_the_stride_does_not_fit():
    # On 8 x 12 pixels windows of 4 every 3 would need 10 x 13; camcli lays them closer together instead.
    e = evidence()
    captums = captum.attr.Occlusion(e.model).attribute(e.images, (3, 4, 4), (3, 3, 3), target=e.index)[:, 0]
    total, count = torch.zeros(2, 8, 12, dtype=torch.float64), torch.zeros(8, 12)
    for top, left in itertools.product((0, 3, 6), (0, 3, 6, 9)):
        variant = e.images.clone()
        variant[:, :, top : top + 4, left : left + 4] = 0
        (hidden,) = e.score_of([variant])
        total[:, top : top + 4, left : left + 4] += (e.score - hidden)[:, None, None]
        count[top : top + 4, left : left + 4] += 1
    agree(total / count, captums.double(), 1e-6)
    differ(occlusion(e.images, e.score, e.score_of, window=4, stride=3), captums.double())


def test_smoothgrad_is_captums_noise_tunnel_with_the_same_noise(monkeypatch):
    # One image, since Captum takes the standard deviation as a number.
    model, images = Two(), pictures(1, 8)
    e = Asked(model, images, [3])
    source = torch.Generator().manual_seed(2)

    def normal(mean, deviation):
        return deviation * torch.randn(1, 3, 8, 8, generator=source).double()

    monkeypatch.setattr(torch, "normal", normal)
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
    captums = tunnel.attribute(
        images.clone().requires_grad_(),
        nt_type="smoothgrad",
        nt_samples=6,
        nt_samples_batch_size=1,
        stdevs=0.2 * (images.max() - images.min()).item(),
        target=e.index,
        abs=False,
    )
    agree(smoothgrad(images, e.score_and_grad, samples=6, sigma=0.2, seed=2), captums)


class Capped(torch.nn.ReLU):
    """ReLU6 as one whole, which Captum takes for a ReLU."""

    def forward(self, x):
        return F.relu6(x)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_deconvnet_is_captums(name):
    model, images, targets = fresh(name), pictures(2, 64), [3, 8]
    copied = copy.deepcopy(model)
    replace(copied, torch.nn.ReLU, torch.nn.ReLU)
    replace(copied, torch.nn.ReLU6, Capped)
    maps = [torch.from_numpy(one.map).double() for [one] in Explainer(model, method="deconvnet")(images, targets)]
    captums = captum.attr.Deconvolution(copied).attribute(images.clone().requires_grad_(), torch.tensor(targets))
    # The explainer hands out float32.
    agree(torch.stack(maps), captums, 1e-6)


# ---- torchcam


def torchcams(method, e, noise=None, **options):
    """The rectified maps of torchcam's method at the layer, before they are min-maxed."""
    with getattr(torchcam, method)(e.model, "features", **options) as extractor:
        if noise is not None:
            extractor._distrib = noise
        return extractor(INDEX, e.model(e.images), normalized=False)[0].detach()


def test_scorecam_is_torchcams_where_nothing_is_upsampled():
    e = evidence()
    theirs = torchcams("ScoreCAM", e)
    agree(scorecam(e.act, e.images, e.score_of).relu(), theirs, 1e-5)


def test_torchcam_min_maxes_before_it_upsamples():
    e = evidence(pool=2)
    theirs = torchcams("ScoreCAM", e)
    agree(by_scores(e, enlarged(min_maxed(e.act), e)).relu(), theirs, 1e-5)
    differ(scorecam(e.act, e.images, e.score_of).relu(), theirs)
    agree(scorecam(e.act, e.images, e.score_of), by_scores(e, min_maxed(enlarged(e.act, e))))


def test_torchcam_gives_flat_channels_a_weight():
    e = evidence(dead=True)
    theirs = torchcams("ScoreCAM", e)
    masks = min_maxed(e.act)
    assert (masks[:, 2] == 0).all()
    agree(by_scores(e, masks).relu(), theirs, 1e-5)
    differ(scorecam(e.act, e.images, e.score_of).relu(), theirs)


def test_ss_cam_is_torchcams_with_the_same_noise():
    e = evidence()
    source = torch.Generator().manual_seed(0)

    def sample(size):
        # torchcam would draw anew for every channel and image.
        return (2 * torch.randn(1, 1, *size[2:], generator=source).double()).expand(size)

    theirs = torchcams("SSCAM", e, SimpleNamespace(sample=sample), num_samples=4)
    agree(ss_cam(e.act, e.images, e.score_of, samples=4, sigma=2.0).relu(), theirs, 1e-5)


def test_torchcams_is_cam_sums_one_step_further():
    e = evidence()
    theirs = torchcams("ISCAM", e, num_samples=5)
    # The paper's M_i is the sum of j/N for j below i, torchcam's that for j up to i.
    beyond = [step * (step + 1) / 10 for step in range(1, 6)]
    agree(by_scores(e, min_maxed(e.act), beyond).relu(), theirs, 1e-5)
    ours = is_cam(e.act, e.images, e.score_of, samples=5)
    agree(ours, by_scores(e, min_maxed(e.act), [step * (step - 1) / 10 for step in range(1, 6)]))
    differ(ours.relu(), theirs)


# ---- pytorch-grad-cam, whose weights and maps are float32


TARGETS = [pytorch_grad_cam.utils.model_targets.ClassifierOutputTarget(index) for index in INDEX]


def jgs_scorecam(e):
    layer = e.model.features
    with pytorch_grad_cam.ScoreCAM(e.model, [layer]) as cam:
        weights = cam.get_cam_weights(e.images, layer, TARGETS, e.act.numpy(), None)
    return (torch.from_numpy(weights).double()[:, :, None, None] * e.act).sum(1)


def test_scorecam_is_pytorch_grad_cams_where_nothing_is_upsampled():
    e = evidence()
    agree(scorecam(e.act, e.images, e.score_of), jgs_scorecam(e), 1e-5)


def test_pytorch_grad_cam_aligns_the_corners():
    e = evidence(pool=2)
    theirs = jgs_scorecam(e)
    agree(by_scores(e, min_maxed(enlarged(e.act, e, align_corners=True))), theirs, 1e-5)
    differ(scorecam(e.act, e.images, e.score_of), theirs)


def test_pytorch_grad_cam_gives_flat_channels_a_weight():
    e = evidence(dead=True)
    theirs = jgs_scorecam(e)
    agree(by_scores(e, min_maxed(e.act)), theirs, 1e-5)
    differ(scorecam(e.act, e.images, e.score_of), theirs)


def jgs_ablation(model, layer, images, act):
    with pytorch_grad_cam.AblationCAM(model, [layer]) as cam:
        weights = cam.get_cam_weights(images, layer, TARGETS, act.numpy(), None)
    return (torch.from_numpy(weights).double()[:, :, None, None] * act).sum(1)


def test_ablation_cam_is_pytorch_grad_cams_behind_a_relu():
    e = evidence()
    act = e.act.relu()
    theirs = jgs_ablation(e.model, e.model.head[0], e.images, act)
    agree(ablation_cam(act, e.score, e.score_from_layer), theirs, 1e-5)


def test_pytorch_grad_cam_ablates_with_minus_ten_million_where_the_layer_is_signed():
    model = Two(1)
    # A ReLU behind the layer would hide it.
    model.head[0] = torch.nn.Identity()
    e = Asked(model, pictures(2, (8, 12)), INDEX)
    assert (e.act.amin((1, 2, 3)) < 0).all()
    theirs = jgs_ablation(e.model, e.model.features, e.images, e.act)
    drops = []
    # Each channel of a batch goes another ten million below the one before.
    value = e.act.amin((1, 2, 3))
    for channel in range(e.act.shape[1]):
        value = value - 1e7
        ablated = e.act.clone()
        ablated[:, channel] = value[:, None, None]
        (left,) = e.score_from_layer([ablated])
        drops.append(e.score - left)
    weights = torch.stack(drops, 1) / e.score[:, None]
    agree((weights[:, :, None, None] * e.act).sum(1), theirs, 1e-5)
    differ(ablation_cam(e.act, e.score, e.score_from_layer), theirs)


def jgs_fullgrad(e):
    """The sum over maps, before it is min-maxed once more."""
    with pytorch_grad_cam.FullGrad(e.model, []) as cam:
        cam.aggregate_multi_layers = lambda maps: maps
        return torch.from_numpy(cam(e.images, TARGETS)).double()


def with_scores_times(factor):
    model = Two()
    with torch.no_grad():
        model.head[3].weight.mul_(factor)
    return Asked(model, pictures(2, (16, 24)), INDEX)


def test_fullgrad_is_pytorch_grad_cams_where_gradients_are_large():
    e = with_scores_times(1e5)
    agree(fullgrad(e.images, e.input_grad, e.biases), jgs_fullgrad(e), 1e-5)


def test_pytorch_grad_cams_fullgrad_fades_where_gradients_are_small():
    large, small = with_scores_times(1.0), with_scores_times(1e-4)
    wanted = fullgrad(large.images, large.input_grad, large.biases)
    # Every map is rescaled to 0..1, so the size of the score must not matter.
    agree(fullgrad(small.images, small.input_grad, small.biases), wanted)
    # To each greatest value it adds 1e-7, which here is more than the greatest value itself.
    assert jgs_fullgrad(small).max() < 0.6 * wanted.max()


def test_every_deviation_is_backed_by_a_test():
    table = (Path(__file__).parents[2] / "docs" / "deviations.md").read_text(encoding="utf-8")
    table = table.partition("## Methods that query the network again")[2]
    rows = [line.strip("| ").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    named = [cells[-1].strip(" `") for cells in rows]
    assert len(named) == 8
    assert all(name in globals() for name in named), [name for name in named if name not in globals()]
