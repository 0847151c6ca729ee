"""Laws of the methods in closed form: batches, order of channels, mirrors, scale, and no number that is none."""

import pytest
import torch
from closed_forms import drawn
from networks import Small, pictures

from camcli.engine.hooks.capture import capture_activations
from camcli.methods.activation import eigencam, fem, kpca_cam, lafam, random
from camcli.methods.concept import dff
from camcli.methods.gradient import (
    eigen_gradcam,
    gradcam,
    gradcam_elementwise,
    gradcam_plus_plus,
    hirescam,
    layercam,
    odam,
    seg_eigen_cam,
    shapleycam,
    smooth_gradcam_plus_plus,
    xgradcam,
)


def noisy(grad):
    return lambda variants: ((None, grad) for _ in variants)


# Each as a function of A and g alone; what more it wants is made of them.
FORMS = {
    "gradcam": gradcam,
    "hirescam": hirescam,
    "odam": odam,
    "gradcam++": gradcam_plus_plus,
    "gradcam++ normalized": lambda act, grad: gradcam_plus_plus(act, grad, normalize=True),
    "smooth-gradcam++": lambda act, grad: smooth_gradcam_plus_plus(act, pictures(len(act)), noisy(grad)),
    "xgradcam": xgradcam,
    "layercam": layercam,
    "gradcam-elementwise": gradcam_elementwise,
    "eigen-gradcam": eigen_gradcam,
    "eigen-gradcam centred": lambda act, grad: eigen_gradcam(act, grad, center=True),
    "seg-eigen-cam": seg_eigen_cam,
    "shapleycam": lambda act, grad: shapleycam(act, grad, grad * act),
    "eigencam": lambda act, grad: eigencam(act),
    "eigencam centred": lambda act, grad: eigencam(act, center=True),
    "kpca-cam": lambda act, grad: kpca_cam(act),
    "kpca-cam rbf": lambda act, grad: kpca_cam(act, kernel="rbf"),
    "fem": lambda act, grad: fem(act, k=1.0),
    "lafam": lambda act, grad: lafam(act),
    "dff": lambda act, grad: dff(act, None, None, concepts=3).maps,
    "random": lambda act, grad: random(act),
}
WITHOUT_GRADIENT = {"eigencam", "eigencam centred", "kpca-cam", "kpca-cam rbf", "fem", "lafam", "dff", "random"}
# alpha depends on the size of g.
NOT_PROPORTIONAL = {"gradcam++", "smooth-gradcam++"}
# Some features of a ReLU (positive, some channels dead), some with both signs.
FEATURES = {"relu": lambda act: (act - 0.2).clamp(min=0) * torch.tensor([1, 1, 0, 1, 1, 1, 1.0])[:, None, None]}
FEATURES["signed"] = lambda act: act + 0.4


forms = pytest.mark.parametrize("form", FORMS)
kinds = pytest.mark.parametrize("kind", FEATURES)


@pytest.fixture
def tensors(kind):
    act, grad = drawn(2, 4, 7, 3, 5, seed=11)
    return FEATURES[kind](act), grad


def close(map, wanted):
    scale = wanted.abs().max()
    assert scale > 0
    assert map.shape == wanted.shape
    assert (map - wanted).abs().max() <= 1e-7 * scale


@forms
@kinds
def test_a_batch_is_its_pictures(form, tensors):
    act, grad = tensors
    whole = FORMS[form](act, grad)
    assert whole.shape == (4, 3, 3, 5) if form == "dff" else (4, 3, 5)
    for row in range(4):
        close(FORMS[form](act[row : row + 1], grad[row : row + 1])[0], whole[row])


@forms
@kinds
def test_the_order_of_channels_is_irrelevant(form, tensors):
    act, grad = tensors
    order = [3, 0, 6, 1, 5, 2, 4]
    close(FORMS[form](act[:, order], grad[:, order]), FORMS[form](act, grad))


@forms
@kinds
@pytest.mark.parametrize("axis", [-1, -2])
def test_a_mirrored_layer_has_a_mirrored_map(form, axis, tensors):
    if form == "random":
        pytest.skip("noise does not look at the layer")
    act, grad = tensors
    close(FORMS[form](act.flip(axis), grad.flip(axis)), FORMS[form](act, grad).flip(axis))


@pytest.mark.parametrize("form", sorted(FORMS.keys() - WITHOUT_GRADIENT))
@kinds
def test_no_gradient_no_map(form, tensors):
    act, grad = tensors
    assert torch.equal(FORMS[form](act, 0 * grad), torch.zeros(4, 3, 5).double())


@pytest.mark.parametrize("form", sorted(FORMS.keys() - WITHOUT_GRADIENT - NOT_PROPORTIONAL))
@kinds
def test_the_map_is_as_great_as_the_gradient(form, tensors):
    act, grad = tensors
    factor = 1e-9
    if form == "gradcam++ normalized":
        # alpha is 1/2 for small gradients, and 1 over the positive cells when normalised: only then.
        grad = 1e-9 * grad
    if form == "shapleycam":
        close(shapleycam(act, factor * grad, factor * grad * act), factor * FORMS[form](act, grad))
    else:
        close(FORMS[form](act, factor * grad), factor * FORMS[form](act, grad))


@pytest.mark.parametrize("form", ["eigencam", "eigencam centred", "lafam", "fem", "dff"])
@kinds
def test_the_map_is_as_great_as_the_activations(form, tensors):
    act, grad = tensors
    close(FORMS[form](1e-9 * act, grad), 1e-9 * FORMS[form](act, grad))


@pytest.mark.parametrize("kind", ["relu"])
@pytest.mark.parametrize("form", ["layercam", "gradcam++", "smooth-gradcam++", "gradcam-elementwise", "eigencam"])
def test_not_negative_behind_a_relu(form, tensors):
    act, grad = tensors
    assert (FORMS[form](act, grad) >= -1e-12).all()


@pytest.mark.parametrize("kind", ["relu"])
def test_xgradcam_keeps_the_sum(tensors):
    # Fu 2020, sensitivity and conservation: over all cells the map sums to sum g A.
    act, grad = tensors
    torch.testing.assert_close(xgradcam(act, grad).sum((1, 2)), (act * grad).sum((1, 2, 3)))


@forms
def test_what_they_are_given_is_left_alone(form):
    act, grad = drawn(2, 2, 7, 3, 5)
    before = act.clone(), grad.clone()
    FORMS[form](act, grad)
    assert torch.equal(act, before[0])
    assert torch.equal(grad, before[1])


@pytest.mark.parametrize("form", sorted(FORMS.keys() - {"random"}))
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_picture_that_cannot_be_computed_harms_no_other(form, bad):
    act, grad = drawn(2, 3, 7, 3, 5)
    act = act.abs()
    spoiled, spoiled_grad = act.clone(), grad.clone()
    spoiled[1, 2, 0, 0] = bad
    spoiled_grad[1, 2, 0, 0] = bad
    map, wanted = FORMS[form](spoiled, spoiled_grad), FORMS[form](act, grad)
    close(map[[0, 2]], wanted[[0, 2]])
    if form not in ("fem",):
        assert not map[1].isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_of_nothing_has_a_map_of_nothing(form):
    map = FORMS[form](torch.zeros(2, 7, 3, 5).double(), drawn(2, 7, 3, 5))
    assert map.any() == (form == "random")
    assert map.isfinite().all()


def test_shapley_of_a_network_is_the_difference_of_scores_to_second_order():
    # Small's score is quadratic in what conv2 says where its ReLU is open, and 0 elsewhere: cell by cell the map sums
    # to the score less the head's bias.
    model, images = Small(), pictures(2, 16)
    with capture_activations({"conv2": model.conv2}) as activations:
        score = model(images)[:, 1]
        (grad,) = torch.autograd.grad(score.sum(), activations["conv2"], create_graph=True)
        act = activations["conv2"]
        (curve,) = torch.autograd.grad(grad, act, act.detach())
    map = shapleycam(act.detach(), grad.detach(), curve, cellwise=True)
    torch.testing.assert_close(map.sum((1, 2)), (score - model.fc.bias[1]).detach())
