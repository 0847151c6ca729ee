"""The hooks: what is tapped is what the layer said, and the model never notices."""

import gc
import weakref
from collections import OrderedDict, namedtuple

import pytest
import torch
from networks import Small, Through, pictures, unruly, untouched
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.hooks.capture import capture_activations
from camcli.engine.hooks.relu import BackwardRules
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.tensors import first_tensor
from camcli.engine.hooks.watch import watch_outputs
from camcli.methods.backprop import guided_backprop

Pair = namedtuple("Pair", "features extra")


# ---- the model is left as it was


def everything(model, images):
    with (
        torch.enable_grad(),
        frozen(model),
        capture_activations({"conv1": model.conv1, "conv2": model.conv2}) as activations,
        watch_outputs(model, lambda name, output: None),
    ):
        with BackwardRules() as relus:
            scores = model(images.clone().requires_grad_().clone())
        points = [activations["conv1"], activations["conv2"]]
        torch.autograd.grad(scores.sum(), points, retain_graph=True)
        with relus.using(guided_backprop):
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
    with capture_activations({"0": layer}) as activations:
        output = model(torch.tensor([-1.0, 2.0, 3.0]))
    assert output.tolist() == [0, 20, 30]
    assert activations["0"].tolist() == [-1, 2, 3]
    (gradient,) = torch.autograd.grad(output.sum(), activations["0"])
    assert gradient.tolist() == [0, 10, 10]


@pytest.mark.parametrize("learned", [False, True], ids=["graph starts at the layer", "graph goes on before it"])
def test_gradients_are_those_of_the_layers_output(learned):
    model = Small()
    images = pictures(2)
    # By hand: the head's derivative of sum_k fc_k mean(relu(a_k)^2) is fc_k 2 relu(a_k) / cells.
    features = model.conv2(model.pool(model.relu1(model.norm1(model.conv1(images)))))
    wanted = model.fc.weight[1][:, None, None] * 2 * features.clamp(min=0) / 16
    with frozen(model), capture_activations({"conv2": model.conv2}) as activations:
        scores = model(images.clone().requires_grad_(learned))
        assert activations["conv2"].is_leaf == (not learned)
        (gradient,) = torch.autograd.grad(scores[:, 1].sum(), activations["conv2"])
    torch.testing.assert_close(activations["conv2"], features)
    torch.testing.assert_close(gradient, wanted)


def test_several_layers_are_tapped_in_one_forward_even_when_one_holds_the_other():
    inner, middle = nn.Linear(2, 2, bias=False), Through(lambda x: 3 * x)
    model = nn.Sequential(nn.Sequential(inner), middle)
    with torch.no_grad():
        inner.weight.copy_(torch.eye(2))
    with frozen(model), capture_activations({"0": model[0], "0.0": inner, "1": middle}) as activations:
        output = model(torch.tensor([[1.0, 2.0]]))
        gradients = torch.autograd.grad(output.sum(), [activations["0"], activations["0.0"], activations["1"]])
    assert activations["0"].tolist() == activations["0.0"].tolist() == [[1, 2]]
    assert activations["1"].tolist() == [[3, 6]]
    assert [gradient.tolist() for gradient in gradients] == [[[3, 3]], [[3, 3]], [[1, 1]]]


def test_nothing_before_the_layer_is_kept_for_the_backward():
    model = Small()
    born = {}

    def hear(name, output):
        born[name] = weakref.ref(output)

    with frozen(model), watch_outputs(model, hear), capture_activations({"conv2": model.conv2}) as activations:
        scores = model(pictures(2))
        gc.collect()
        alive = {name for name in ("conv1", "norm1", "relu1", "pool") if born[name]() is not None}
        assert not alive
        assert activations["conv2"].grad_fn is None
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
    with capture_activations({"layer": layer}) as activations:
        score = model(x).sum()
        (gradient,) = torch.autograd.grad(score, activations["layer"])
    assert activations["layer"].tolist() == [2, -6]
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
    with untouched(model), capture_activations({"layer": layer}) as activations:
        (gradient,) = torch.autograd.grad(model(None).sum(), activations["layer"])
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
    with untouched(model), capture_activations({"square": model.square}, call) as activations:
        score = model(torch.ones(1))
    assert score.item() == 14
    assert activations.calls["square"] == 3
    assert (activations["square"].item() if "square" in activations else None) == kept


def test_the_gradient_of_an_early_run_comes_by_way_of_the_later_ones():
    layer = Through(lambda x: 3 * x)
    model = nn.Sequential(layer, layer)
    for call, gradient in ((1, 3.0), (2, 1.0), (0, 1.0)):
        with capture_activations({"shared": layer}, call) as activations:
            score = model(torch.ones(1))
        assert torch.autograd.grad(score, activations["shared"])[0].item() == gradient


def test_the_tensors_of_an_output_are_counted():
    layer = Through(lambda x: {"one": [x, (x + 1,)], "word": "no"})
    with capture_activations({"layer": layer}) as activations:
        layer(torch.zeros(1))
    assert activations.tensor_counts == {"layer": 2}
    assert activations["layer"].item() == 0


@pytest.mark.parametrize(
    ("output", "said"), [("text", "str"), (None, "NoneType"), (torch.ones(1, dtype=torch.int64), "Tensor")]
)
def test_a_layer_without_a_tensor_of_numbers_is_refused(output, said):
    layer = Through(lambda x: output)
    with capture_activations({"odd": layer}), pytest.raises(RequestError, match=rf"'odd' \(Through\) returns {said}"):
        layer(torch.zeros(1))


def test_listened_tells_every_output_in_order_of_their_ends():
    model = nn.Sequential(OrderedDict(a=nn.Identity(), b=nn.Sequential(OrderedDict(c=nn.ReLU()))))
    heard = []
    with watch_outputs(model, lambda name, output: heard.append((name, output.item()))):
        model(torch.tensor(-1.0))
    assert heard == [("a", -1), ("b.c", 0), ("b", 0), ("", 0)]
    model(torch.tensor(-1.0))
    assert len(heard) == 4
