"""The hooks: what is tapped is what the layer said, and the model never notices."""

import gc
import weakref
from collections import OrderedDict, namedtuple

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from camcli.capture import first_tensor, frozen, listened, tapped
from camcli.errors import RequestError
from camcli.methods.backprop import guided_backprop
from camcli.ruled import RuledActivations
from networks import Small, Through, pictures, unruly, untouched

Pair = namedtuple("Pair", "features extra")


# ---- the model is left as it was


def everything(model, images):
    with (
        torch.enable_grad(),
        frozen(model),
        tapped({"conv1": model.conv1, "conv2": model.conv2}) as taps,
        listened(model, lambda name, output: None),
    ):
        with RuledActivations() as relus:
            scores = model(images.clone().requires_grad_().clone())
        points = [taps["conv1"], taps["conv2"]]
        torch.autograd.grad(scores.sum(), points, retain_graph=True)
        with relus.following(guided_backprop):
            torch.autograd.grad(scores.sum(), points)


def test_model_is_untouched():
    model = unruly(Small())
    with untouched(model):
        everything(model, pictures(2))


@pytest.mark.parametrize("where", ["conv1", "relu1", "conv2", "fc"])
def test_model_is_untouched_after_an_error_in_its_forward(where):
    model = unruly(Small())

    def fail(module, inputs):
        raise ZeroDivisionError("inside")

    model.get_submodule(where).register_forward_pre_hook(fail)
    with untouched(model), pytest.raises(ZeroDivisionError, match="inside"):
        everything(model, pictures(2))


def test_frozen_is_evaluation_without_learning_and_only_while_it_lasts():
    model = unruly(Small())
    with untouched(model):
        with frozen(model):
            assert not any(module.training for module in model.modules())
            assert not any(parameter.requires_grad for parameter in model.parameters())
        assert model.training
        assert not model.conv1.training


def test_frozen_calls_no_train_or_eval_that_a_model_may_have_overridden():
    class Stubborn(Small):
        def train(self, mode=True):
            self.calls = getattr(self, "calls", 0) + 1
            return super().train(mode)

    model = Stubborn()
    model.training = True
    before = model.calls
    with frozen(model):
        assert not model.training
    assert model.training
    assert model.calls == before


# ---- what is tapped


def test_an_in_place_operation_behind_the_layer_does_not_change_what_was_tapped():
    layer = Through(lambda x: x * 1.0)
    model = nn.Sequential(layer, nn.ReLU(inplace=True), Through(lambda x: 10 * x))
    with tapped({"0": layer}) as taps:
        output = model(torch.tensor([-1.0, 2.0, 3.0]))
    assert output.tolist() == [0, 20, 30]
    assert taps["0"].tolist() == [-1, 2, 3]
    (gradient,) = torch.autograd.grad(output.sum(), taps["0"])
    assert gradient.tolist() == [0, 10, 10]


@pytest.mark.parametrize("learned", [False, True], ids=["graph starts at the layer", "graph goes on before it"])
def test_gradients_are_those_of_the_layers_output(learned):
    model = Small()
    images = pictures(2)
    # By hand: the head's derivative of sum_k fc_k mean(relu(a_k)^2) is fc_k 2 relu(a_k) / cells.
    features = model.conv2(model.pool(model.relu1(model.norm1(model.conv1(images)))))
    wanted = model.fc.weight[1][:, None, None] * 2 * features.clamp(min=0) / 16
    with frozen(model), tapped({"conv2": model.conv2}) as taps:
        scores = model(images.clone().requires_grad_(learned))
        assert taps["conv2"].is_leaf == (not learned)
        (gradient,) = torch.autograd.grad(scores[:, 1].sum(), taps["conv2"])
    torch.testing.assert_close(taps["conv2"], features)
    torch.testing.assert_close(gradient, wanted)


def test_several_layers_are_tapped_in_one_forward_even_when_one_holds_the_other():
    inner, middle = nn.Linear(2, 2, bias=False), Through(lambda x: 3 * x)
    model = nn.Sequential(nn.Sequential(inner), middle)
    with torch.no_grad():
        inner.weight.copy_(torch.eye(2))
    with frozen(model), tapped({"0": model[0], "0.0": inner, "1": middle}) as taps:
        output = model(torch.tensor([[1.0, 2.0]]))
        gradients = torch.autograd.grad(output.sum(), [taps["0"], taps["0.0"], taps["1"]])
    assert taps["0"].tolist() == taps["0.0"].tolist() == [[1, 2]]
    assert taps["1"].tolist() == [[3, 6]]
    assert [gradient.tolist() for gradient in gradients] == [[[3, 3]], [[3, 3]], [[1, 1]]]


def test_nothing_before_the_layer_is_kept_for_the_backward():
    model = Small()
    born = {}

    def hear(name, output):
        born[name] = weakref.ref(output)

    with frozen(model), listened(model, hear), tapped({"conv2": model.conv2}) as taps:
        scores = model(pictures(2))
        gc.collect()
        alive = {name for name in ("conv1", "norm1", "relu1", "pool") if born[name]() is not None}
        assert not alive
        assert taps["conv2"].grad_fn is None
        assert scores.requires_grad


WRAPPINGS = {
    "tuple": (lambda x: (x, 7), lambda y: y[0]),
    "second in a tuple": (lambda x: (None, x), lambda y: y[1]),
    "list": (lambda x: [x, "text"], lambda y: y[0]),
    "dict": (lambda x: {"size": 3, "features": x}, lambda y: y["features"]),
    "ordered dict": (lambda x: OrderedDict(features=x), lambda y: y["features"]),
    "namedtuple": (lambda x: Pair(x, 1), lambda y: y.features),
    "nested": (lambda x: {"all": (Pair("a", x),)}, lambda y: y["all"][0].extra),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_tensor_inside_a_layers_output_is_tapped_and_the_rest_handed_on(wrapping):
    wrap, unwrap = WRAPPINGS[wrapping]
    layer = Through(lambda x: wrap(2 * x))
    seen = {}

    def read(output):
        seen["output"] = output
        return unwrap(output).square()

    model = nn.Sequential(layer, Through(read))
    x = torch.tensor([1.0, -3.0])
    with tapped({"layer": layer}) as taps:
        score = model(x).sum()
        (gradient,) = torch.autograd.grad(score, taps["layer"])
    assert taps["layer"].tolist() == [2, -6]
    assert gradient.tolist() == [4, -12]
    assert type(seen["output"]) is type(wrap(x))
    plain = wrap(x)
    if isinstance(plain, tuple | list):
        rest = [part for part in plain if not isinstance(part, torch.Tensor | tuple)]
        assert [part for part in seen["output"] if not isinstance(part, torch.Tensor | tuple)] == rest


def test_a_layer_that_hands_on_what_it_owns_keeps_it_as_it_was():
    layer = nn.Module()
    layer.register_buffer("table", torch.tensor([1.0, -2.0]))
    layer.forward = lambda x: layer.table
    model = nn.Sequential(layer, nn.ReLU(inplace=True))
    with untouched(model), tapped({"layer": layer}) as taps:
        (gradient,) = torch.autograd.grad(model(None).sum(), taps["layer"])
    assert gradient.tolist() == [1, 0]
    assert not layer.table.requires_grad


def test_first_tensor():
    one, two = torch.zeros(1), torch.zeros(2)
    assert first_tensor(one) is one
    assert first_tensor([None, {"a": 3, "b": (two, one)}]) is two
    assert first_tensor({"text": "no"}) is None
    assert first_tensor(None) is None


@pytest.mark.parametrize(("call", "kept"), [(0, 9.0), (1, 1.0), (2, 4.0), (3, 9.0), (4, None)])
def test_of_a_layer_that_runs_several_times_the_run_asked_for_is_kept(call, kept):
    class Thrice(nn.Module):
        def __init__(self):
            super().__init__()
            self.square = Through(torch.square)

        def forward(self, x):
            return self.square(x) + self.square(2 * x) + self.square(3 * x)

    model = Thrice()
    with untouched(model), tapped({"square": model.square}, call) as taps:
        score = model(torch.ones(1))
    assert score.item() == 14
    assert taps.calls["square"] == 3
    assert (taps["square"].item() if "square" in taps else None) == kept


def test_the_gradient_of_an_early_run_comes_by_way_of_the_later_ones():
    layer = Through(lambda x: 3 * x)
    model = nn.Sequential(layer, layer)
    for call, gradient in ((1, 3.0), (2, 1.0), (0, 1.0)):
        with tapped({"shared": layer}, call) as taps:
            score = model(torch.ones(1))
        assert torch.autograd.grad(score, taps["shared"])[0].item() == gradient


def test_the_tensors_of_an_output_are_counted():
    layer = Through(lambda x: {"one": [x, (x + 1,)], "word": "no"})
    with tapped({"layer": layer}) as taps:
        layer(torch.zeros(1))
    assert taps.parts == {"layer": 2}
    assert taps["layer"].item() == 0


@pytest.mark.parametrize(
    ("output", "said"), [("text", "str"), (None, "NoneType"), (torch.ones(1, dtype=torch.int64), "Tensor")]
)
def test_a_layer_without_a_tensor_of_numbers_is_refused(output, said):
    layer = Through(lambda x: output)
    with tapped({"odd": layer}), pytest.raises(RequestError, match=rf"'odd' \(Through\) gives {said}"):
        layer(torch.zeros(1))


def test_listened_tells_every_output_in_order_of_their_ends():
    model = nn.Sequential(OrderedDict(a=nn.Identity(), b=nn.Sequential(OrderedDict(c=nn.ReLU()))))
    heard = []
    with listened(model, lambda name, output: heard.append((name, output.item()))):
        model(torch.tensor(-1.0))
    assert heard == [("a", -1), ("b.c", 0), ("b", 0), ("", 0)]
    model(torch.tensor(-1.0))
    assert len(heard) == 4


# ---- ReLUs on the way back

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
    with RuledActivations() as relus:
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
    with relus.following(guided_backprop):
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
    with RuledActivations() as relus:
        y = function(x)
    assert relus.count == 0
    with relus.following(guided_backprop):
        (gradient,) = torch.autograd.grad(y, x, torch.tensor(G))
    (wanted,) = torch.autograd.grad(function(x), x, torch.tensor(G))
    assert torch.equal(y, function(x))
    assert torch.equal(gradient, wanted)


def test_a_relu_of_what_no_gradient_passes_is_not_counted():
    numbers = torch.tensor([-1, 2])
    constant = torch.tensor([-1.0, 2.0])
    place = torch.empty(2)
    with RuledActivations() as relus:
        assert F.relu(numbers).tolist() == [0, 2]
        assert F.relu(constant).tolist() == [0, 2]
        torch.clamp(constant, 0, out=place)
    assert place.tolist() == [0, 2]
    assert relus.count == 0


def test_the_rule_ends_with_its_block_also_after_an_error():
    relus = RuledActivations()
    with pytest.raises(KeyError), relus.following(guided_backprop):
        raise KeyError
    assert relus.rule is None


def test_relus_outside_the_mode_are_torchs_own():
    x = torch.tensor(X, requires_grad=True)
    with RuledActivations() as relus:
        pass
    y = F.relu(x)
    with relus.following(guided_backprop):
        (gradient,) = torch.autograd.grad(y, x, torch.tensor(G))
    assert relus.count == 0
    assert gradient.tolist() == PLAIN[torch.inf]


def test_what_follows_a_relu6_may_change_it_in_place_as_torch_allows():
    x = torch.tensor(X, requires_grad=True)
    with RuledActivations() as relus:
        y = F.relu6(x).mul_(2)
    (gradient,) = torch.autograd.grad(y, x, torch.tensor(G), retain_graph=True)
    assert gradient.tolist() == [2 * value for value in PLAIN[6]]
    with relus.following(guided_backprop):
        (gradient,) = torch.autograd.grad(y, x, torch.tensor(G))
    assert gradient.tolist() == [2 * value for value in GUIDED[6]]


def test_two_relus_each_cut_what_is_negative_on_its_way():
    # y = relu(relu(x) @ W), by hand. x = (1, 2), W = [[1, -1], [1, 1]]: hidden (3, 1), both open.
    # From above (1, -2): guided at the top (1, 0); through W: (1, 1); guided again: (1, 1).
    # Plain: (1, -2) @ W^T = (3, -1).
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    weights = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    with RuledActivations() as relus:
        y = F.relu(F.relu(x) @ weights)
    above = torch.tensor([1.0, -2.0])
    with relus.following(guided_backprop):
        assert torch.autograd.grad(y, x, above, retain_graph=True)[0].tolist() == [1, 1]
    assert torch.autograd.grad(y, x, above)[0].tolist() == [3, -1]
    assert relus.count == 2


def test_every_relu6_of_the_bundled_architecture_is_met():
    model = timm.create_model("tf_efficientnet_lite0").eval()
    with RuledActivations() as relus:
        model(torch.zeros(1, 3, 32, 32, requires_grad=True).clone())
    assert relus.count == sum(isinstance(module, nn.ReLU6) for module in model.modules()) == 33
