"""Methods share forward and backward passes, and nothing is computed that no method asks for."""

import pytest
import torch
from networks import Small, pictures

from camcli import Explainer, RequestError
from camcli.methods import SIGNALS, MethodRow, works_at


class Counted(Small):
    forwards = 0

    def forward(self, x):
        self.graph = x.requires_grad
        type(self).forwards += 1
        return super().forward(x)


@pytest.fixture
def counted(monkeypatch):
    """A network that counts its forwards, and the backwards: ``forwards, backwards`` since the last look."""
    backwards = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: backwards.append(1) or grad(*args, **kwargs))
    Counted.forwards = 0

    def since(work):
        Counted.forwards = 0
        backwards.clear()
        work()
        return Counted.forwards, len(backwards)

    return since


@pytest.mark.parametrize(
    ("method", "layers", "cost"),
    [
        ("gradcam", ["conv2"], (1, 1)),
        ("gradcam", ["conv2", "conv1"], (1, 1)),
        ("gradcam,hirescam", ["conv2", "conv1"], (1, 1)),
        (("gradcam", "hirescam"), ["conv2"], (1, 1)),
        ("guided-gradcam,gradcam,guided-backprop", ["conv2"], (1, 2)),
        ("guided-backprop", [], (1, 1)),
    ],
)
def test_methods_share_forward_and_backward(counted, method, layers, cost):
    explain = Explainer(Counted(), layers=layers, method=method)
    explain.check(pictures(1, 16))
    assert counted(lambda: explain(pictures(3, 16), 1)) == cost


def test_a_method_that_needs_only_the_activation_goes_back_nowhere(bring, counted):
    name = bring(lambda act: act.mean(1), "mean")
    explain = Explainer(Counted(), layers=["conv2"], method=name)
    explain.check(pictures(1, 16))
    assert counted(lambda: explain(pictures(3, 16), 1)) == (1, 0)


def test_a_method_that_needs_only_images_and_answers_needs_no_layer_and_no_graph(bring, counted):
    model = Counted()
    explain = Explainer(
        model, method=bring(lambda images, score_of: images[:, 0] * next(score_of([images]))[:, None, None], "m")
    )
    explain.check(pictures(1, 16))
    assert counted(lambda: explain(pictures(3, 16), 1)) == (2, 0)
    assert explain.layers == ()
    assert not model.graph
    with pytest.raises(RequestError, match="'m' works at the input"):
        Explainer(model, method="m", layers=["conv2"])


def test_the_graph_starts_at_the_layer_unless_the_input_is_asked_for(bring):
    model = Counted()
    Explainer(model, layers=["conv2"])(pictures(1, 16))
    assert not model.graph
    Explainer(model, method=bring(lambda input_grad: input_grad, "slope"))(pictures(1, 16))
    assert model.graph


def test_an_unknown_name_is_refused_with_what_there_is(bring):
    with pytest.raises(RequestError, match="'odd' takes 'moon', and there is no such signal") as caught:
        Explainer(Small(), method=bring(lambda act, moon: act, "odd"))
    assert all(f"  {name}: " in caught.value.hint for name in SIGNALS)


def test_where_a_method_works_follows_from_its_signature():
    assert works_at(MethodRow("gradient", "gradcam")) == "layer"
    assert works_at(MethodRow("backprop", "guided-backprop")) == "input"
    assert works_at(MethodRow("product", "guided-gradcam")) == "layer and input"
