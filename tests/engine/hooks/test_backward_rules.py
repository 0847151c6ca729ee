"""Backward rules at ReLUs: what a rule changes however the ReLU is spelt, and what it leaves."""

import pytest
import timm
import timm.layers.activations
import torch
import torch.nn.functional as F
from torch import nn

from camcli.engine.hooks.relu import BackwardRules
from camcli.methods.backprop import deconvnet, guided_backprop

# What is put in, what comes from above, and what guided backprop lets through where 0 < x (< 6) and g > 0.
X = [-1.0, 0.0, 1.0, 2.0, 5.0, 6.0, 7.0]
G = [1.0, 1.0, 3.0, -4.0, 2.0, 5.0, 1.0]
PLAIN = {torch.inf: [0, 0, 3, -4, 2, 5, 1], 6: [0, 0, 3, -4, 2, 0, 0]}
GUIDED = {torch.inf: [0, 0, 3, 0, 2, 5, 1], 6: [0, 0, 3, 0, 2, 0, 0]}
SPELLINGS = {
    "nn.ReLU()": (torch.inf, nn.ReLU()),
    "nn.ReLU(inplace=True)": (torch.inf, nn.ReLU(inplace=True)),
    "F.relu": (torch.inf, F.relu),
    "F.relu(inplace=True)": (torch.inf, lambda x: F.relu(x, inplace=True)),
    "F.relu(x, True)": (torch.inf, lambda x: F.relu(x, True)),
    "F.relu(input=x)": (torch.inf, lambda x: F.relu(input=x)),
    "F.relu_": (torch.inf, F.relu_),
    "torch.relu": (torch.inf, torch.relu),
    "torch.relu_": (torch.inf, torch.relu_),
    "Tensor.relu": (torch.inf, lambda x: x.relu()),
    "Tensor.relu_": (torch.inf, lambda x: x.relu_()),
    "clamp(min=0)": (torch.inf, lambda x: x.clamp(min=0)),
    "clamp(0)": (torch.inf, lambda x: x.clamp(0)),
    "torch.clamp(min=0)": (torch.inf, lambda x: torch.clamp(x, min=0)),
    "clamp_(min=0)": (torch.inf, lambda x: x.clamp_(min=0)),
    "torch.clamp_(0)": (torch.inf, lambda x: torch.clamp_(x, 0)),
    "clamp_min(0)": (torch.inf, lambda x: x.clamp_min(0)),
    "clamp_min_(0)": (torch.inf, lambda x: x.clamp_min_(0)),
    "torch.clamp_min(0)": (torch.inf, lambda x: torch.clamp_min(x, 0)),
    "torch.clamp_min_(0)": (torch.inf, lambda x: torch.clamp_min_(x, 0)),
    "clip(0)": (torch.inf, lambda x: x.clip(0)),
    "clip_(0)": (torch.inf, lambda x: x.clip_(0)),
    "clamp(0, inf)": (torch.inf, lambda x: x.clamp(0, torch.inf)),
    "nn.ReLU6()": (6, nn.ReLU6()),
    "nn.ReLU6(inplace=True)": (6, nn.ReLU6(inplace=True)),
    "F.relu6": (6, F.relu6),
    "F.relu6(inplace=True)": (6, lambda x: F.relu6(x, inplace=True)),
    "nn.Hardtanh(0, 6)": (6, nn.Hardtanh(0, 6)),
    "nn.Hardtanh(0, 6, inplace=True)": (6, nn.Hardtanh(0, 6, inplace=True)),
    "F.hardtanh(0, 6)": (6, lambda x: F.hardtanh(x, 0, 6)),
    "F.hardtanh(min_val=0, max_val=6, inplace=True)": (6, lambda x: F.hardtanh(x, min_val=0, max_val=6, inplace=True)),
    "F.hardtanh_(0, 6)": (6, lambda x: F.hardtanh_(x, 0.0, 6.0)),
    "clamp(0, 6)": (6, lambda x: x.clamp(0, 6)),
    "clamp(min=0, max=6)": (6, lambda x: torch.clamp(x, min=0, max=6)),
    "clamp_(0, 6)": (6, lambda x: x.clamp_(0, 6)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_relu_is_guided_however_it_is_spelt(spelling):
    ceiling, relu = SPELLINGS[spelling]
    x = torch.tensor(X, requires_grad=True)
    with BackwardRules() as relus:
        handed = x.clone()
        y = relu(handed)
    assert relus.count == 1
    assert y.tolist() == [min(max(value, 0), ceiling) for value in X]
    in_place = "inplace=True" in spelling or "True)" in spelling or "_(" in spelling or spelling.endswith("_")
    assert (handed is y) == in_place
    above = torch.tensor(G)

    def below():
        return torch.autograd.grad(y, x, above, retain_graph=True)[0].tolist()

    # One forward serves the ordinary backward, the guided one, and the ordinary one again.
    assert below() == PLAIN[ceiling]
    with relus.using(guided_backprop):
        assert below() == GUIDED[ceiling]
    assert below() == PLAIN[ceiling]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.leaky_relu(x, 0.1),
        lambda x: x.clamp(min=1),
        lambda x: x.clamp(max=6),
        lambda x: x.clamp(-1, 1),
        lambda x: x.clamp(min=torch.zeros(())),
        F.hardtanh,
        F.gelu,
        F.silu,
        torch.abs,
    ],
)
def test_what_is_no_relu_keeps_its_value_and_gradient(function):
    x = torch.tensor(X, requires_grad=True)
    with BackwardRules() as relus:
        y = function(x)
    assert relus.count == 0
    with relus.using(guided_backprop):
        (gradient,) = torch.autograd.grad(y, x, torch.tensor(G))
    (wanted,) = torch.autograd.grad(function(x), x, torch.tensor(G))
    assert torch.equal(y, function(x))
    assert torch.equal(gradient, wanted)


def test_a_relu_of_what_no_gradient_passes_is_not_counted():
    numbers = torch.tensor([-1, 2])
    constant = torch.tensor([-1.0, 2.0])
    place = torch.empty(2)
    with BackwardRules() as relus:
        assert F.relu(numbers).tolist() == [0, 2]
        assert F.relu(constant).tolist() == [0, 2]
        torch.clamp(constant, 0, out=place)
    assert place.tolist() == [0, 2]
    assert relus.count == 0


def test_the_rule_ends_with_its_block_also_after_an_error():
    relus = BackwardRules()
    with pytest.raises(KeyError), relus.using(guided_backprop):
        raise KeyError
    assert relus.rule is None


def test_relus_outside_the_mode_are_torchs_own():
    x = torch.tensor(X, requires_grad=True)
    with BackwardRules() as relus:
        pass
    y = F.relu(x)
    with relus.using(guided_backprop):
        (gradient,) = torch.autograd.grad(y, x, torch.tensor(G))
    assert relus.count == 0
    assert gradient.tolist() == PLAIN[torch.inf]


def test_what_follows_a_relu6_may_change_it_in_place_as_torch_allows():
    x = torch.tensor(X, requires_grad=True)
    with BackwardRules() as relus:
        y = F.relu6(x).mul_(2)
    (gradient,) = torch.autograd.grad(y, x, torch.tensor(G), retain_graph=True)
    assert gradient.tolist() == [2 * value for value in PLAIN[6]]
    with relus.using(guided_backprop):
        (gradient,) = torch.autograd.grad(y, x, torch.tensor(G))
    assert gradient.tolist() == [2 * value for value in GUIDED[6]]


def test_two_relus_each_cut_what_is_negative_on_its_way():
    # y = relu(relu(x) @ W), by hand. x = (1, 2), W = [[1, -1], [1, 1]]: hidden (3, 1), both open.
    # From above (1, -2): guided at the top (1, 0); through W: (1, 1); guided again: (1, 1).
    # Plain: (1, -2) @ W^T = (3, -1).
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    weights = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    with BackwardRules() as relus:
        y = F.relu(F.relu(x) @ weights)
    above = torch.tensor([1.0, -2.0])
    with relus.using(guided_backprop):
        assert torch.autograd.grad(y, x, above, retain_graph=True)[0].tolist() == [1, 1]
    assert torch.autograd.grad(y, x, above)[0].tolist() == [3, -1]
    assert relus.count == 2


def test_every_relu6_of_the_bundled_architecture_is_met():
    model = timm.create_model("tf_efficientnet_lite0").eval()
    with BackwardRules() as relus:
        model(torch.zeros(1, 3, 32, 32, requires_grad=True).clone())
    assert relus.count == sum(isinstance(module, nn.ReLU6) for module in model.modules()) == 33


@pytest.mark.parametrize("rule", [guided_backprop, deconvnet])
def test_at_a_relu_the_extended_rule_is_the_papers(rule):
    x, grad = torch.tensor(X), torch.tensor(G)
    slope = (x > 0).float()
    assert torch.equal(rule(grad, x > 0, slope), rule(grad, x > 0))
