"""The grammar of layer paths."""

from collections import OrderedDict

import pytest
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.layers.paths import resolve


def block():
    return nn.Sequential(OrderedDict(norm1=nn.Identity(), attn=nn.Identity(), norm2=nn.Identity()))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Identity()
        for number in range(1, 5):
            setattr(self, f"layer{number}", nn.Sequential(nn.Identity(), nn.Identity()))
        self.blocks = nn.ModuleList(block() for _ in range(12))
        self.branches = nn.ModuleDict({"a": nn.Identity(), "b": nn.Sequential(nn.Identity())})
        # Numbers that are names, and not in the order of their places.
        self.odd = nn.ModuleDict({"2": nn.Identity(), "0": nn.Identity()})


MODEL = Model()


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("layer4", ["layer4"]),
        ("layer4.1", ["layer4.1"]),
        ("layer4.-1", ["layer4.1"]),
        ("layer4.-2", ["layer4.0"]),
        ("layer4[-1]", ["layer4.1"]),
        ("layer4[0]", ["layer4.0"]),
        ("blocks.-1.norm1", ["blocks.11.norm1"]),
        ("blocks[-1].norm1", ["blocks.11.norm1"]),
        ("blocks[-1][0]", ["blocks.11.norm1"]),
        ("blocks.-1.-1", ["blocks.11.norm2"]),
        ("blocks[-3:].norm1", ["blocks.9.norm1", "blocks.10.norm1", "blocks.11.norm1"]),
        ("blocks[:2]", ["blocks.0", "blocks.1"]),
        ("blocks[1:3]", ["blocks.1", "blocks.2"]),
        ("blocks[::5]", ["blocks.0", "blocks.5", "blocks.10"]),
        ("blocks[2::-1]", ["blocks.2", "blocks.1", "blocks.0"]),
        ("blocks[10:99].attn", ["blocks.10.attn", "blocks.11.attn"]),
        ("layer*", ["layer1", "layer2", "layer3", "layer4"]),
        ("layer?.-1", ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
        ("blocks.0.norm*", ["blocks.0.norm1", "blocks.0.norm2"]),
        ("blocks.*.attn", [f"blocks.{index}.attn" for index in range(12)]),
        # Only some of what a glob meets has what follows.
        ("branches.*.0", ["branches.b.0"]),
        ("branches.b", ["branches.b"]),
        ("branches[b]", ["branches.b"]),
        ("-1", ["odd"]),
        ("[0]", ["stem"]),
        # A name comes before a place.
        ("odd.0", ["odd.0"]),
        ("odd.2", ["odd.2"]),
        ("odd.1", ["odd.0"]),
        ("odd.-1", ["odd.0"]),
    ],
)
def test_paths(path, names):
    assert resolve(MODEL, [path]) == names


def test_every_full_name_names_itself():
    names = [name for name, _ in MODEL.named_modules() if name]
    assert [resolve(MODEL, [name]) for name in names] == [[name] for name in names]


def test_several_paths_keep_the_order_asked_and_each_layer_once():
    assert resolve(MODEL, ["layer4", "layer2", "layer*"]) == ["layer4", "layer2", "layer1", "layer3"]
    assert resolve(MODEL, []) == []


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        # The step that failed, what exists there, and the nearest.
        ("layer5", "the model (Model) has no 'layer5'", "did you mean 'layer"),
        ("layr4", "the model (Model) has no 'layr4'", "'layer4'"),
        ("layer4.2", "'layer4' has no '2'", "'layer4' has 2: 0, 1"),
        ("layer4.-3", "'layer4' has no '-3'", "'layer4' has 2: 0, 1"),
        ("layer4[2]", "'layer4' has no '[2]'", "'layer4' has 2: 0, 1"),
        ("layer4.conv1", "'layer4' has no 'conv1'", "'layer4' has 2: 0, 1"),
        ("blocks.0.norm3", "'blocks.0' has no 'norm3'", "did you mean 'blocks.0.norm"),
        ("block.2.norm1", "the model (Model) has no 'block'", "did you mean 'blocks.2.norm1'?"),
        ("block[-1]", "the model (Model) has no 'block'", "did you mean 'blocks[-1]'?"),
        ("block.99", "the model (Model) has no 'block'", "did you mean 'blocks'?"),
        ("blocks.0.norm3", "'blocks.0' has no 'norm3'", "'blocks.0' has 3: norm1, attn, norm2"),
        ("blocks.x", "'blocks' has no 'x'", "'blocks' has 12: 0, 1, 2"),
        ("blocks[12:]", "'blocks' has no '[12:]'", "'blocks' has 12: 0, 1, 2"),
        ("stem.conv", "'stem' has no submodules, so no 'conv'", "use 'stem' itself"),
        ("stage*", "the model (Model) has no 'stage*'", "stem, layer1"),
        ("layer*.norm1", "'layer1' has no 'norm1'", "'layer1' has 2: 0, 1"),
        ("*.norm1", "'layer1' has no 'norm1'", "'layer1' has 2: 0, 1"),
        ("norm1", "the model (Model) has no 'norm1'", "norm1'"),
    ],
)
def test_a_step_that_does_not_exist(path, message, hint):
    with pytest.raises(RequestError) as caught:
        resolve(MODEL, ["stem", path])
    assert f"the layer {path!r} does not exist" in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("", "''"),
        ("layer4.", "''"),
        (".layer4", "''"),
        ("layer4..0", "''"),
        ("layer4[", "'layer4['"),
        ("layer4[0", "'layer4[0'"),
        ("layer4]0[", "'layer4]0['"),
        ("layer4[]", "'layer4[]'"),
        ("layer4[0]x", "'layer4[0]x'"),
        ("blocks[::0]", "'[::0]'"),
        ("blocks[-:]", "'[-:]'"),
    ],
)
def test_a_path_that_cannot_be_read(path, part):
    with pytest.raises(RequestError) as caught:
        resolve(MODEL, [path])
    assert "cannot be parsed" in caught.value.message or "does not exist" in caught.value.message
    assert part in caught.value.message


def test_a_module_that_stands_in_two_places_has_both_names():
    model = nn.Module()
    model.one = nn.Identity()
    model.two = model.one
    assert resolve(model, ["two"]) == ["two"]
    assert resolve(model, ["*"]) == ["one", "two"]
    relu = nn.ReLU()
    assert resolve(nn.Sequential(relu, nn.Identity(), relu), ["-1", "[1]"]) == ["2", "1"]


def test_a_place_left_empty_is_no_layer():
    model = nn.Sequential(nn.Identity(), nn.Identity())
    model.register_module("none", None)
    assert resolve(model, ["-1"]) == ["1"]
    with pytest.raises(RequestError, match="has no 'none'"):
        resolve(model, ["none"])
