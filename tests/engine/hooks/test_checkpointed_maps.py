"""With parts computed again maps are the same, and nothing is kept before the earliest layer explained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import PROMPTS, tiny_clip
from image_towers import TOWERS, VIT
from networks import Small, pictures, untouched
from torch.autograd.graph import saved_tensors_hooks

from camcli import Explainer, Network, PictureError
from camcli.engine.hooks import checkpointing
from camcli.engine.hooks.watch import watch_outputs
from camcli.models.load import load


def clip(folder: Path) -> Network:
    torch.manual_seed(0)
    tiny_clip(folder, vision_cfg={**VIT, "layers": 6})
    return load(f"open_clip:local-dir:{folder}", text=PROMPTS)


def clip_of_timm(folder: Path) -> Network:
    tiny_clip(folder, vision_cfg=TOWERS["of timm"])
    return load(f"open_clip:local-dir:{folder}", text=PROMPTS)


NETWORKS = {
    "cnn": lambda folder: load("timm:test_resnet", weights="random"),
    "efficientnet": lambda folder: load("timm:test_efficientnet", weights="random"),
    "vit": lambda folder: load("timm:test_vit", weights="random"),
    "clip": clip,
    "timm in clip": clip_of_timm,
}
# By network: methods that share a run, and their layers.
RUNS = [
    ("cnn", "gradcam,hirescam,layercam,gradcam++,shapleycam,finer-cam", ["bn1", "layer1", "layer4"]),
    ("cnn", "guided-backprop,deconvnet,guided-gradcam", ["layer2"]),
    ("cnn", "saliency,input-x-gradient,smoothgrad,integrated-gradients", []),
    ("cnn", "smooth-gradcam++", ["layer1"]),
    ("cnn", "fullgrad", []),
    ("vit", "gradcam,hirescam,shapleycam", ["blocks.0", "blocks[2:4]", "blocks.3.attn.proj"]),
    ("vit", "gae,rollout,attention,saliency,smoothgrad", []),
    ("vit", "gae", []),
    ("vit", "guided-backprop", []),
    ("clip", "gradcam,layercam,finer-cam", ["visual.conv1", "visual.transformer.resblocks[:3]"]),
    ("clip", "gae,rollout,input-x-gradient", []),
]
QUICK = {"smoothgrad": "samples=3", "smooth-gradcam++": "samples=3", "integrated-gradients": "steps=4"}


def options_of(methods: str, network: str) -> list[str]:
    own = [f"{name}.{word}" for name, word in QUICK.items() if name in methods.split(",")]
    return own + (["activations=all"] if network != "cnn" and "guided-backprop" in methods else [])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "methods", "layers"), RUNS, ids=[f"{one[0]} {one[1]}" for one in RUNS])
def test_maps_are_the_same(tmp_path, name, methods, layers, dtype):
    network = NETWORKS[name](tmp_path)
    network.module.to(dtype)
    asked = {"layers": layers, "method": methods, "options": options_of(methods, name)}
    images = pictures(3, network.preprocess.size[0], dtype=dtype)
    classes = [[0, 1], [2], [1]]
    plain = Explainer(network, **asked).results(images, lambda row, scores: classes[row])
    explain = Explainer(network, recompute=True, **asked)
    with untouched(network.module):
        again = explain.results(images, lambda row, scores: classes[row])
    made = 0
    for ones, others in zip(plain, again, strict=True):
        for one, other in zip(ones, others, strict=True):
            if isinstance(one, PictureError):  # no map, and for the same reason
                assert one.message == other.message
                continue
            made += 1
            assert (one.method, one.layer, one.score) == (other.method, other.layer, other.score)
            assert np.abs(one.map - other.map).max() <= 1e-6 * np.abs(one.map).max()
    assert made
    assert any("recomputed in the backward pass" in note for note in explain.notes)


def test_maps_are_the_same_around_a_method_at_other_sizes(tmp_path):
    """Of these blocks each holds a table of positions, which the forward at another size has interpolated."""
    network = load("timm:test_vit_relpos", weights="random")
    images = pictures(2, 160, dtype=torch.float32)
    asked = {"layers": ["blocks[:3]"], "fuse": "mean", "scales": (0.8, 1.0), "flips": ["flip"]}
    with untouched(network.module):
        plain, again = (Explainer(network, recompute=one, **asked)(images, [1, 2]) for one in (False, True))
    for [one], [other] in zip(plain, again, strict=True):
        assert np.abs(one.map - other.map).max() <= 1e-6 * np.abs(one.map).max()


def test_a_layer_is_explained_wherever_it_stands_in_a_part():
    network = load("timm:test_vit", weights="random")
    images = pictures(2, 160, dtype=torch.float32)
    for layers in (["blocks.2"], ["blocks.2.norm2"], ["blocks.1.mlp", "blocks.2.mlp.fc2"], ["blocks.4", "blocks.0"]):
        plain, again = (Explainer(network, layers=layers, recompute=one)(images, 3) for one in (False, True))
        for ones, others in zip(plain, again, strict=True):
            for one, other in zip(ones, others, strict=True):
                assert np.abs(one.map - other.map).max() <= 1e-6 * np.abs(one.map).max(), layers


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("methods", ["gradcam,hirescam", "saliency,gae", "guided-backprop"])
def test_maps_are_the_same_where_the_way_back_has_threads_of_its_own(methods):
    network = load("timm:test_vit", weights="random")
    network.module.cuda()
    asked = {"method": methods, "options": options_of(methods, "vit")}
    images = pictures(2, 160, dtype=torch.float32)
    plain, again = (Explainer(network, recompute=one, **asked)(images, 3) for one in (False, True))
    for ones, others in zip(plain, again, strict=True):
        for one, other in zip(ones, others, strict=True):
            assert np.abs(one.map - other.map).max() <= 1e-5 * np.abs(one.map).max()


def test_groups_and_channels_go_with_it():
    model = Small()
    images = pictures(4, 16)
    for asked in ({"group": True}, {"top_channels": 3}, {"eigen_smooth": True}):
        plain, again = (Explainer(model, layers=["relu1"], recompute=one, **asked)(images, 1) for one in (False, True))
        for ones, others in zip(plain, again, strict=True):
            assert all(np.array_equal(one.map, other.map) for one, other in zip(ones, others, strict=True))


# ---- nothing is kept for layers before the earliest one explained


class Witnessed:
    """What a forward of the explainer keeps, by the module that was running."""

    def __init__(self, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept: list[tuple[str, ...]] = []
        self._running: list[str] = []
        self._names = {id(part): name for name, part in network.module.named_modules()}
        own = checkpointing.checkpoint

        def checkpoint(function, *inputs, **more):
            self.kept.append(tuple(self._running))  # what a part is given
            return own(function, *inputs, **more)

        monkeypatch.setattr(checkpointing, "checkpoint", checkpoint)
        for part in network.module.modules():
            part.register_forward_pre_hook(lambda part, _: self._running.append(self._names[id(part)]))
            part.register_forward_hook(self._end)

    def _end(self, *_):
        self._running.pop()

    def keep(self, tensor):
        self.kept.append(tuple(self._running))
        return tensor


BLOCKS, TRUNK = "visual.transformer.resblocks", "visual.trunk"
# By network: the earliest layer explained, another, and what runs before them.
EARLIEST = [
    ("efficientnet", "blocks.1", "blocks.-1", ["conv_stem", "bn1", "blocks.0"]),
    ("vit", "blocks.3.norm2", "blocks.5.norm1", ["patch_embed", "blocks.0", "blocks.2", "blocks.3.norm1"]),
    ("clip", f"{BLOCKS}.2", f"{BLOCKS}.5.ln_1", ["visual.conv1", f"{BLOCKS}.0", f"{BLOCKS}.1"]),
    ("timm in clip", f"{TRUNK}.blocks.2", f"{TRUNK}.blocks.5.norm1", [f"{TRUNK}.patch_embed", f"{TRUNK}.blocks.1"]),
]


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize(("name", "layer", "later", "before"), EARLIEST, ids=[one[0] for one in EARLIEST])
def test_nothing_is_kept_before_the_earliest_layer(tmp_path, monkeypatch, name, layer, later, before, wanted):
    network = NETWORKS[name](tmp_path)
    images = pictures(2, network.preprocess.size[0], dtype=torch.float32)
    explain = Explainer(network, layers=[later, layer], recompute=wanted)
    explain(images, 1)
    plan = explain.findings.plan
    assert bool(plan.checkpointed_modules) == wanted
    ended: list[str] = []
    seen = Witnessed(network, monkeypatch)
    with (
        explain.setup.runner.ready(),
        saved_tensors_hooks(seen.keep, lambda kept: kept),
        watch_outputs(network.module, lambda name, _: ended.append(name)),
    ):
        forward = explain.setup.runner.run(images, plan=plan)
    assert [*forward.activations] == [layer, explain.layers[0]]
    assert set(before) <= set(ended[: ended.index(layer)])
    assert seen.kept
    inside = {name for running in seen.kept for name in running}
    # Not by any of them, nor by what they hold.
    assert not [one for one in inside for early in before if one == early or one.startswith(f"{early}.")]


def test_a_method_at_the_input_keeps_less_with_it():
    network = load("timm:test_vit", weights="random")
    images = pictures(4, 160, dtype=torch.float32)
    kept = []
    for wanted in (False, True):
        explain = Explainer(network, method="saliency", recompute=wanted)
        explain(images, 1)
        plan = explain.findings.plan
        bytes_of: dict[int, int] = {}

        def keep(tensor, bytes_of=bytes_of):
            bytes_of[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with explain.setup.runner.ready():
            own = {one.untyped_storage().data_ptr() for one in network.module.parameters()}
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                forward = explain.setup.runner.run(images, plan=plan)
        kept.append(sum(size for place, size in bytes_of.items() if place not in own))
        del forward
    assert kept[1] < 0.5 * kept[0]
