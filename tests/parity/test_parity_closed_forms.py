"""The closed forms against pytorch-grad-cam and torchcam, in float64, and where those two part from the papers.

What agrees, agrees to 1e-5 of the map's scale. What does not is pinned: the test shows the deviation to be exactly
what docs/deviations.md says it is. Both are asked before their post-processing; pytorch-grad-cam gets A and g as
arrays, since it keeps no copy of a layer's output.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Pooled, Small, pictures
from other_libraries import pytorch_grad_cam, their_dff, torchcam
from parity_networks import fresh
from planted import objects

from camcli.engine.hooks.capture import capture_activations
from camcli.methods.activation import eigencam, fem, kpca_cam, random
from camcli.methods.concept import dff, dff_directions
from camcli.methods.gradient import (
    cam,
    eigen_gradcam,
    finer_cam,
    gradcam,
    gradcam_elementwise,
    gradcam_plus_plus,
    hirescam,
    layercam,
    layercam_fusion,
    seg_eigen_cam,
    shapleycam,
    smooth_gradcam_plus_plus,
    xgradcam,
)

pytestmark = pytest.mark.parity

TARGETS = [3, 8]
# Behind a ReLU with a gradient that differs between cells; before one, with activations of both signs.
LAYERS = ["layer3", "layer2.1.bn2"]


class Tapped:
    """A network's tensors at one layer, for a batch, as the explainer will have them."""

    def __init__(self, model, layer, images, targets=TARGETS):
        self.model, self.layer, self.images = model, model.get_submodule(layer), images
        self.name = layer
        self.index = torch.tensor(targets)
        self.logits, self.taps = self._forward(images)
        self.act = self.taps[layer].detach()
        self.grad = self.gradient(self.logits.gather(1, self.index[:, None]).sum())

    def _forward(self, images):
        with capture_activations({self.name: self.layer}) as activations:
            return self.model(images), activations

    def gradient(self, score):
        (grad,) = torch.autograd.grad(score, self.taps[self.name], retain_graph=True)
        return grad.detach()

    def grad_of(self, weights):
        return self.gradient((self.logits * weights).sum())

    def responses(self, variants):
        for variant in variants:
            logits, activations = self._forward(variant)
            act = activations[self.name]
            (grad,) = torch.autograd.grad(logits.gather(1, self.index[:, None]).sum(), act)
            yield act.detach(), grad

    def theirs(self, kind, act=None, grad=None):
        """A pytorch-grad-cam method's map of these tensors, before it is rectified and scaled."""
        method = getattr(pytorch_grad_cam, kind)(self.model, [self.layer])
        act, grad = (self.act if act is None else act), (self.grad if grad is None else grad)
        map = method.get_cam_image(self.images, self.layer, None, act.numpy().copy(), grad.numpy().copy(), False)
        method.activations_and_grads.release()
        return torch.from_numpy(np.asarray(map)).double()


@pytest.fixture(scope="module")
def resnet():
    return fresh("resnet18")


@pytest.fixture(scope="module", params=LAYERS)
def at(request, resnet):
    return Tapped(resnet, request.param, pictures(2, 64))


@pytest.fixture(scope="module")
def behind_relu(resnet):
    return Tapped(resnet, "layer3", pictures(2, 64))


def apart(ours, theirs):
    """The greatest difference of two maps, by each image's own scale, of the images the worst."""
    assert ours.shape == theirs.shape
    scale = theirs.abs().flatten(1).amax(1)
    assert (scale > 0).all()
    return ((ours - theirs).abs().flatten(1).amax(1) / scale).max()


def agree(ours, theirs):
    assert apart(ours, theirs.detach()) <= 1e-5


def up_to_sign(ours, theirs):
    """Their map, each image's turned to agree with ours."""
    return theirs * torch.where((ours * theirs).sum((1, 2)) < 0, -1, 1)[:, None, None]


# ---- pytorch-grad-cam agrees


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (gradcam, "GradCAM"),
        (hirescam, "HiResCAM"),
        (layercam, "LayerCAM"),
        (gradcam_elementwise, "GradCAMElementWise"),
        (seg_eigen_cam, "SegEigenCAM"),
    ],
)
def test_pytorch_grad_cam_agrees(ours, theirs, at):
    agree(ours(at.act, at.grad), at.theirs(theirs))


def test_pytorch_grad_cam_agrees_on_xgradcam(behind_relu):
    agree(xgradcam(behind_relu.act, behind_relu.grad), behind_relu.theirs("XGradCAM"))


@pytest.mark.parametrize("smooth", [True, False])
def test_pytorch_grad_cam_agrees_on_shapleycam(smooth, resnet):
    # Small's head is quadratic; behind resnet's layer3 all is piecewise linear, where H is nothing.
    model, layer = (Small(), "conv2") if smooth else (resnet, "layer3")
    images = pictures(2, 16 if smooth else 64)
    with capture_activations({layer: model.get_submodule(layer)}) as activations:
        score = model(images)[[0, 1], [3, 1]].sum()
        act = activations[layer]
        (grad,) = torch.autograd.grad(score, act, create_graph=True)
    (curve,) = torch.autograd.grad(grad, act, act.detach(), retain_graph=True, materialize_grads=True)
    assert bool(curve.any()) == smooth
    method = pytorch_grad_cam.ShapleyCAM(model, [model.get_submodule(layer)])
    theirs = torch.from_numpy(method.get_cam_image(None, None, None, act, grad, False))
    method.activations_and_grads.release()
    ours = shapleycam(act.detach(), grad.detach(), curve)
    agree(ours, theirs)
    assert torch.equal(ours, gradcam(act.detach(), grad.detach())) != smooth


# ---- pytorch-grad-cam deviates


def test_pytorch_grad_cams_gradcam_plus_plus_adds_1e_6_to_what_is_smaller(behind_relu):
    act, grad = behind_relu.act, behind_relu.grad
    # Where g^2 is far above 1e-6 it agrees.
    large = 1e4 * grad
    agree(gradcam_plus_plus(act, large), behind_relu.theirs("GradCAMPlusPlus", grad=large))
    # A score of a thousandth has gradients of a thousandth: alpha should be 1/2, and is g^2 / 1e-6.
    small = 1e-6 * grad / grad.abs().max()
    total = act.sum((2, 3), keepdim=True)
    alpha = small**2 / (2 * small**2 + total * small**3 + 1e-6)
    theirs = behind_relu.theirs("GradCAMPlusPlus", grad=small)
    agree(((alpha * small.clamp(min=0)).sum((2, 3), keepdim=True) * act).sum(1), theirs)
    assert theirs.abs().max() < 1e-5 * gradcam_plus_plus(act, small).abs().max()


def test_pytorch_grad_cams_xgradcam_adds_1e_7_with_a_sign_of_its_own(behind_relu):
    # A channel that sums to -1.0001e-7 has, with 1e-7 added, next to nothing to be divided by.
    act = torch.tensor([[[[1e-7, -2.0001e-7]]]], dtype=torch.float64)
    grad = torch.ones(1, 1, 1, 2).double()
    torch.testing.assert_close(xgradcam(act, grad), act[:, 0])
    assert behind_relu.theirs("XGradCAM", act, grad).abs().max() > 1e3 * act.abs().max()
    # And where A sums to nothing we give no map, they one of 1e7.
    act = torch.tensor([[[[1.0, -1.0]]]]).double()
    grad = torch.tensor([[[[1.0, 0.0]]]]).double()
    assert xgradcam(act, grad).isnan().all()
    assert behind_relu.theirs("XGradCAM", act, grad).abs().max() == pytest.approx(1e7)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(lambda at, **options: eigencam(at.act, **options), "EigenCAM"),
     (lambda at, **options: eigen_gradcam(at.act, at.grad, **options), "EigenGradCAM")],
)  # fmt: skip
def test_pytorch_grad_cams_components_are_centred_and_have_no_sign(ours, theirs, at):
    map = at.theirs(theirs)
    centred = ours(at, center=True)
    agree(centred, up_to_sign(centred, map))
    # The paper does not centre.
    plain = ours(at)
    assert apart(plain, up_to_sign(plain, map)) > 0.01


def test_pytorch_grad_cams_eigencam_loses_objects_by_its_sign(behind_relu):
    act, place = objects(200, (6, 7), False, seed=7)
    theirs = behind_relu.theirs("EigenCAM", act)
    lost = ((theirs * place).sum((1, 2)) < 0).sum()
    assert 0 < lost < 200
    assert ((eigencam(act, center=True) * place).sum((1, 2)) > 0).all()


def test_pytorch_grad_cams_kpca_cam_has_no_sign_rule(at):
    for kernel in ("sigmoid", "rbf", "poly", "cosine", "linear"):
        method = pytorch_grad_cam.KPCA_CAM(at.model, [at.layer], kernel=kernel)
        theirs = torch.from_numpy(method.get_cam_image(None, None, None, at.act.numpy(), None, False)).double()
        method.activations_and_grads.release()
        ours = kpca_cam(at.act, kernel=kernel)
        agree(ours, up_to_sign(ours, theirs))


def test_pytorch_grad_cams_fem_weights_activations_by_how_many_pass(at):
    act = at.act
    theirs = at.theirs("FEM")
    mean, std = act.mean((2, 3), keepdim=True), act.std((2, 3), keepdim=True, correction=0)
    share = (act > mean + 2 * std).double().mean((2, 3), keepdim=True)
    agree((share * act).sum(1), theirs)
    # The paper's is the channel's mean where the channel passes, and nothing elsewhere.
    agree((mean * (act > mean + 2 * std)).sum(1), fem(act))
    assert apart(fem(act) / fem(act).abs().max(), theirs / theirs.abs().max()) > 0.05


def test_pytorch_grad_cams_finer_cam_lets_the_gradient_through_its_weights(behind_relu):
    at = behind_relu
    distance = (at.logits - at.logits.gather(1, at.index[:, None])).abs().detach()
    similar = distance.argsort(1)[:, 1:4]
    targets = [
        pytorch_grad_cam.utils.model_targets.FinerWeightedTarget(index, others, 0.8)
        for index, others in zip(at.index.tolist(), similar.tolist(), strict=True)
    ]
    score = sum(target(row) for target, row in zip(targets, at.logits, strict=True))
    theirs = gradcam(at.act, at.gradient(score))
    given = (at.act, at.logits.detach(), at.index, at.grad_of)
    agree(finer_cam(*given, alpha=0.8, weights="softmax-gradient"), theirs)
    # With the weights held, as the formula has them, it is another map.
    assert apart(finer_cam(*given, alpha=0.8), theirs) > 0.01


def test_pytorch_grad_cams_finer_cam_given_a_class_compares_nothing(resnet):
    # The targets replace the comparison itself.
    images = pictures(2, 64)
    layer = resnet.layer3
    with pytorch_grad_cam.FinerCAM(resnet, [layer]) as method:
        plain = method(images, targets=[pytorch_grad_cam.utils.model_targets.ClassifierOutputTarget(3)] * 2)
    with pytorch_grad_cam.GradCAM(resnet, [layer]) as method:
        gradcams = method(images, targets=[pytorch_grad_cam.utils.model_targets.ClassifierOutputTarget(3)] * 2)
    np.testing.assert_allclose(plain, gradcams)


def test_pytorch_grad_cams_random_is_no_noise(behind_relu):
    # Random weights of the channels: two calls differ, and the layer shines through both.
    np.random.seed(0)
    act, _ = objects(2, (6, 7), False, seed=7)
    theirs = torch.stack([behind_relu.theirs("RandomCAM", act, act) for _ in range(100)])
    assert apart(theirs[0], theirs[1]) > 0.1
    noise = random(act).flatten(1)
    assert torch.equal(noise[0], noise[1])
    # Under random weights a cell's size is as its activations'; under noise it is not.
    sizes, energy = theirs.abs().mean(0).flatten(1), act.norm(dim=1).flatten(1)
    for row in range(2):
        assert torch.corrcoef(torch.stack([sizes[row], energy[row]]))[0, 1] > 0.9
        assert torch.corrcoef(torch.stack([noise[row], energy[row]]))[0, 1].abs() < 0.3


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pytorch_grad_cams_dff_shifts_channels(behind_relu):
    act = behind_relu.act.double()
    # To them a constant more in a channel is nothing, however much of the activation it is.
    _, maps = their_dff(act.numpy().copy(), n_components=3)
    raised = act + torch.arange(act.shape[1])[:, None, None]
    _, theirs = their_dff(raised.numpy().copy(), n_components=3)
    np.testing.assert_allclose(theirs, maps, rtol=0.05, atol=0.02 * np.abs(maps).max())
    assert apart(dff(raised, None, None, concepts=3).maps[0], dff(act, None, None, concepts=3).maps[0]) > 0.1
    # On activations whose channels reach zero there is no shift, and both factorise the same: ours as well as theirs.
    rows = act - act.amin((0, 2, 3), keepdim=True)
    concepts, maps = their_dff(rows.numpy().copy(), n_components=3)
    cells = rows.movedim(1, 3).flatten(0, 2)
    theirs = np.linalg.norm(cells.numpy() - (concepts @ maps.transpose(1, 0, 2, 3).reshape(3, -1)).T)
    directions = dff_directions([cells], concepts=3)
    ours = dff(rows, directions, None, concepts=3).maps.movedim(1, 3).flatten(0, 2) @ directions
    assert (cells - ours).norm() <= 1.02 * theirs


# ---- torchcam


def torchcams(kind, at, layers=None, **options):
    """A torchcam method's maps before they are scaled; it rectifies all but CAM."""
    names = layers or [at.name]
    with getattr(torchcam, kind)(at.model, names, input_shape=tuple(at.images.shape[1:]), **options) as method:
        scores = at.model(at.images)
        return method(at.index.tolist(), scores, normalized=False), method


@pytest.mark.parametrize(("ours", "theirs"), [(gradcam, "GradCAM"), (xgradcam, "XGradCAM"), (layercam, "LayerCAM")])
def test_torchcam_agrees(ours, theirs, behind_relu):
    [map], _ = torchcams(theirs, behind_relu)
    agree(ours(behind_relu.act, behind_relu.grad).clamp(min=0), map)


def test_torchcam_agrees_on_cam():
    at = Tapped(Pooled(), "last", pictures(2, 16), [2, 0])

    def rest(variants):
        return (at.model.fc(one.mean((2, 3))).gather(1, at.index[:, None])[:, 0].detach() for one in variants)

    score = at.logits.gather(1, at.index[:, None])[:, 0].detach()
    [map], _ = torchcams("CAM", at, fc_layer="fc")
    agree(cam(at.act, at.grad, score, rest), map)


def test_torchcams_cam_does_not_ask_whether_the_head_is_linear():
    # Small squares its features before it pools them: g is not the weight, and they show it as if it were. The ReLU
    # behind conv2 works in place, and torchcam keeps no copy either: what it weights is what the ReLU left.
    at = Tapped(Small(), "conv2", pictures(2, 16), [2, 0])
    [map], _ = torchcams("CAM", at, fc_layer="fc")
    agree(torch.einsum("nk,nkij->nij", at.model.fc.weight[at.index].detach(), at.act.clamp(min=0)), map)
    with pytest.raises(Exception, match="CAM is not defined here"):
        cam(at.act, at.grad, at.logits.gather(1, at.index[:, None])[:, 0].detach(), lambda variants: iter(()))


def test_torchcam_agrees_on_finer_cam_with_equal_weights(behind_relu):
    at = behind_relu
    with torchcam.FinerCAM(at.model, at.name, base_method=torchcam.GradCAM, gamma=0.6) as method:
        [map] = method(at.index.tolist(), at.model(at.images), normalized=False)
    ours = finer_cam(at.act, at.logits.detach(), at.index, at.grad_of, alpha=0.6, weights="mean")
    agree(ours.clamp(min=0), map)
    # Its default is neither the authors' code's alpha of 1 nor their weights.
    assert apart(finer_cam(at.act, at.logits.detach(), at.index, at.grad_of).clamp(min=0), map) > 0.01


def test_torchcams_fusion_raises_the_deepest_layer_too(resnet):
    layers = ["layer2", "layer3", "layer4"]
    at = [Tapped(resnet, layer, pictures(2, 64)) for layer in layers]
    maps = [layercam(one.act, one.grad).clamp(min=0) for one in at]
    # Theirs takes its own maps scaled from their minimum to their maximum; behind a ReLU the minimum is close to 0.
    scaled = [
        (map - map.amin((1, 2), keepdim=True)) / (map - map.amin((1, 2), keepdim=True)).amax((1, 2), keepdim=True)
        for map in maps
    ]
    theirs = torchcam.LayerCAM.fuse_cams([map.clone() for map in scaled])
    ours = layercam_fusion(scaled)
    everywhere = layercam_fusion([*scaled, torch.zeros_like(scaled[-1])])
    agree(everywhere, theirs)
    assert apart(ours, theirs) > 0.01


def test_torchcams_gradcam_plus_plus_never_divides(behind_relu):
    [map], _ = torchcams("GradCAMpp", behind_relu)
    act, grad = behind_relu.act, behind_relu.grad
    weight = (grad**2 * grad.clamp(min=0)).sum((2, 3), keepdim=True)
    agree((weight * act).sum(1).clamp(min=0), map)
    ours = gradcam_plus_plus(act, grad)
    assert apart(ours / ours.abs().max(), map / map.abs().max()) > 0.01


def test_torchcams_smooth_gradcam_plus_plus_takes_the_last_copys_gradient(behind_relu):
    at = behind_relu
    with torch.random.fork_rng():
        torch.manual_seed(0)
        [map], _ = torchcams("SmoothGradCAMpp", at, num_samples=3, std=0.3)
        torch.manual_seed(0)
        noise = [0.3 * torch.randn(at.images.shape) for _ in range(3)]
    answers = [pair for pair in at.responses(at.images + one for one in noise)]  # noqa: C416
    second, third = (sum(grad**power for _, grad in answers) / 3 for power in (2, 3))
    alpha = second / (2 * second + (third * at.act).sum((2, 3), keepdim=True) + 1e-8)
    last_act, last_grad = answers[-1]
    weight = (alpha * last_grad.clamp(min=0)).sum((2, 3), keepdim=True)
    # The map is made of the last copy's activations, too.
    agree((weight * last_act).sum(1).clamp(min=0), map)
    ours = smooth_gradcam_plus_plus(at.act, at.images, at.responses, samples=3)
    assert apart(ours / ours.abs().max(), map / map.abs().max()) > 0.01


def test_torchcam_shows_zero_where_there_is_no_number(behind_relu):
    # nansum: a NaN of one channel counts as nothing, without a word.
    act = behind_relu.act.clone()
    act[:, 0] = torch.nan
    with torchcam.GradCAM(behind_relu.model, behind_relu.name) as method:
        scores = behind_relu.model(behind_relu.images)
        method.hook_a[0] = act
        [map] = method(behind_relu.index.tolist(), scores, normalized=False)
    assert map.isfinite().all()
    assert gradcam(act, behind_relu.grad).isnan().all()


def test_the_table_names_tests_that_exist():
    table = (Path(__file__).parents[2] / "docs" / "deviations.md").read_text(encoding="utf-8")
    table = table.partition("## Closed forms")[2].partition("## Methods that query the network again")[0]
    named = set(re.findall(r"`(test_\w+)` \|$", table, re.MULTILINE))
    assert len(named) > 10
    assert named <= globals().keys()
