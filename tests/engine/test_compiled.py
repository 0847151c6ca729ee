"""Compiled, scripted and traced modules: what works beside them is the same, and what they hide is refused."""

import numpy as np
import pytest
import torch
from networks import Small, pictures, seeded, untouched
from torch import nn

from camcli import Explainer
from camcli.base.errors import RequestError
from camcli.engine.hooks.opaque import find_opaque_modules
from camcli.engine.hooks.watch import watch_outputs
from camcli.engine.layers.probe import probe_layers

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning"),
    # torch's own while it compiles for an input that is no leaf of the graph.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


def called(part):
    """Only the forward is compiled, and not the module."""
    part.forward = torch.compile(part.forward, backend="eager")
    return part


def in_place(part):
    part.compile(backend="eager")
    return part


CLOSED = {
    "compiled": lambda part: torch.compile(part, backend="eager"),
    "compiled in place": in_place,
    "forward compiled": called,
    "scripted": torch.jit.script,
    "traced": lambda part: torch.jit.trace(part, pictures(1, 16)),
    "frozen": lambda part: torch.jit.freeze(torch.jit.script(part)),
}
# Those that can be hooked as wholes.
WHOLE = {"compiled", "forward compiled", "traced"}
every_way = pytest.mark.parametrize("way", CLOSED)


class Stemmed(nn.Module):
    """A stem, perhaps closed, then a convolution and a head that look at five channels."""

    def __init__(self, way=""):
        super().__init__()
        torch.compiler.reset()
        self.stem = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 5, 3, stride=2, padding=1))
        self.conv = nn.Conv2d(5, 5, 3, padding=1)
        self.act = nn.ReLU()
        self.fc = nn.Linear(5, 4)
        seeded(self, 3)
        if way:
            self.stem = CLOSED[way](self.stem.requires_grad_(False))

    def forward(self, x):
        return self.fc(self.act(self.conv(self.stem(x))).square().mean((2, 3)))


def maps(model, method="gradcam", layers=("conv",)):
    return [row[0].map for row in Explainer(model, method=method, layers=layers)(pictures(2, 16), [1, 2])]


def alike(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert np.abs(one - other).max() <= 1e-6 * np.abs(other).max()


@pytest.mark.slow
@every_way
@pytest.mark.parametrize("method", ["gradcam", "layercam", "eigencam", "scorecam", "smooth-gradcam++", "shapleycam"])
def test_beside_a_closed_module_maps_are_what_they_are_without(way, method):
    model = Stemmed(way)
    model(pictures(1, 16))  # what is compiled is so now
    with untouched(model.conv):
        alike(maps(model, method), maps(Stemmed(), method))
    # Nothing of that stays behind in what was compiled.
    assert torch.allclose(model(pictures(1, 16)), Stemmed()(pictures(1, 16)))


@pytest.mark.slow
@every_way
@pytest.mark.parametrize("method", ["saliency", "smoothgrad", "occlusion"])
def test_methods_at_the_input_need_not_look_inside(way, method):
    alike(maps(Stemmed(way), method, []), maps(Stemmed(), method, []))


@every_way
def test_a_closed_module_itself_is_explained_or_refused(way):
    if way in WHOLE:
        alike(maps(Stemmed(way), layers=["stem"]), maps(Stemmed(), layers=["stem"]))
        return
    with pytest.raises(RequestError, match="the layer 'stem' cannot be hooked: the module 'stem' is") as caught:
        maps(Stemmed(way), layers=["stem"])
    assert "or choose a layer outside" in caught.value.hint


@every_way
def test_a_layer_inside_is_refused_with_the_reason(way):
    inside = {"compiled": "stem._orig_mod.2"}.get(way, "stem.2")
    if way == "frozen":
        return  # it has no modules any more
    made = "scripted or traced by torch.jit" if way in ("scripted", "traced") else "compiled by torch.compile"
    with pytest.raises(RequestError, match=f"the layer '{inside}' cannot be .*: the module 'stem' is {made}"):
        maps(Stemmed(way), layers=[inside])


@every_way
@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("guided-backprop", "changes how gradients pass each ReLU"),
        ("deconvnet", "changes how gradients pass each ReLU"),
        ("guided-gradcam", "changes how gradients pass each ReLU"),
        ("rollout", "follows attention through every operation"),
        ("gae", "follows attention through every operation"),
        ("ablation-cam", "reruns only the part of the network after a layer"),
        ("fullgrad", "needs the bias of every operation"),
    ],
)
def test_what_must_see_everything_is_refused_with_the_reason(way, method, why):
    layers = ["conv"] if method in ("guided-gradcam", "ablation-cam") else []
    with pytest.raises(RequestError, match=rf"^{method} {why}, and the module 'stem' is .* hides"):
        maps(Stemmed(way), method, layers)


@every_way
def test_a_model_closed_as_a_whole_has_no_layers_to_look_at(way):
    model = CLOSED[way](Stemmed().requires_grad_(False))
    with pytest.raises(RequestError, match="no layer can be hooked: the model is") as caught:
        maps(model, layers=["conv"])
    assert "before torch.compile" in caught.value.hint or "as Python code" in caught.value.hint
    with pytest.raises(RequestError, match=r"guided-backprop .*, and the model is"):
        maps(model, "guided-backprop", [])
    alike(maps(model, "saliency", []), maps(Stemmed(), "saliency", []))


@every_way
def test_layers_inside_are_listed_with_the_reason_and_never_chosen(way):
    model = Stemmed(way)
    listed = {layer.name: layer for layer in probe_layers(model, pictures(1, 16)[:1])}
    inside = [layer for name, layer in listed.items() if name.startswith("stem.")]
    assert way == "frozen" or inside
    assert all("'stem' is " in layer.reason for layer in inside)
    assert listed["act"].reason == ""
    assert Explainer(model)(pictures(1, 16), 1)[0][0].layer == "act"


def test_only_the_outermost_counts_and_a_disabled_function_is_open():
    model = nn.Sequential(torch.compile(Stemmed("compiled"), backend="eager"), Small())
    model[1].forward = torch.compiler.disable(model[1].forward)
    assert [one.name for one in find_opaque_modules(model)] == ["0"]
    with watch_outputs(model, lambda name, output: None):
        hooked = [name for name, module in model.named_modules() if module._forward_hooks]
    assert hooked == [name for name, _ in model.named_modules() if not name.startswith("0.")]
