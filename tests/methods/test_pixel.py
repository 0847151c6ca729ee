"""Methods at the input (saliency, SmoothGrad, integrated gradients, FullGrad): by hand, and complete."""

import pytest
import torch
from by_hand import EXACT, IMAGE, close, equal, evidence, layer, red, squares
from networks import pictures
from plain_signals import Asked, Two, sloping

from camcli.methods.backprop import deconvnet
from camcli.methods.pixel import fullgrad, input_x_gradient, integrated_gradients, saliency, smoothgrad


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
