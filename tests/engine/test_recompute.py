"""Parts recomputed in the backward pass: the same maps, less kept, and nothing before the earliest layer explained."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clips import PROMPTS, tiny_clip
from networks import Plain, Small, pictures, seeded, untouched
from readback import facts
from test_positions import TOWERS, VIT
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from typer.testing import CliRunner

import camcli
from camcli import Explainer, Job, Network, PictureError, RequestError
from camcli.cli import app
from camcli.engine.hooks import checkpointing
from camcli.engine.hooks.checkpointing import CallMemory, checkpointed, choose_parts, measure_kept
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.watch import watch_outputs
from camcli.models.load import load

UNIT = 8 * 3 * 4 * 4  # bytes of an image of these tests, in float64


# ---- what is kept, by hand


class Waves(nn.Module):
    """exp(cos(sin(x))): kept are x, sin(x), and the result."""

    def forward(self, x):
        return x.sin().cos().exp()


def waves(count: int) -> nn.Module:
    return nn.Sequential(*(Waves() for _ in range(count)))


def test_what_each_module_keeps_is_counted_once():
    model, image = waves(3), pictures(1, 4).requires_grad_()
    with measure_kept(model) as whole:
        model(image)
    assert [call.module for call in whole.children] == list(model)
    # The input of the second is the result of the first.
    assert [(call.input_bytes, call.own_bytes, call.can_recompute) for call in whole.children] == [
        (UNIT, 3 * UNIT, True),
        (UNIT, 2 * UNIT, True),
        (UNIT, 2 * UNIT, True),
    ]
    assert (whole.own_bytes, whole.kept_bytes) == (0, 7 * UNIT)


def test_weights_are_no_part_of_it_and_without_a_gradient_there_is_nothing():
    model = seeded(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    with frozen(model), measure_kept(model) as whole:
        model(pictures(1, 4).requires_grad_())
    assert whole.kept_bytes == 0
    with frozen(model), measure_kept(waves(3)) as whole:
        model(pictures(1, 4))
    assert whole.kept_bytes == 0


def test_the_parts_are_the_largest_within_the_limit_that_is_best():
    model = nn.ModuleList(nn.Identity() for _ in range(8))
    one, two, three, four, *halves = model
    small = [CallMemory(half, input_bytes=1, can_recompute=True, own_bytes=3) for half in halves]
    whole = CallMemory(
        model,
        children=[
            CallMemory(one, input_bytes=1, can_recompute=True, own_bytes=1, children=small[:2]),  # 7
            CallMemory(two, input_bytes=1, can_recompute=True, own_bytes=2),
            CallMemory(three, input_bytes=2, can_recompute=True, own_bytes=2),  # keeps no more than it is given
            CallMemory(four, input_bytes=1, can_recompute=False, children=small[2:]),  # 6, and cannot be computed again
        ],
    )
    # Limit 2: two -> 7 + 1 + 2 + 6, and 2 while it is computed. Limit 3: the halves too -> 1 + 4 + 1 + 2, and 3.
    # Limit 7: one -> 1 + 1 + 2 + 2, and 7.
    best = choose_parts(whole)
    assert (best.bytes_before, best.bytes_after) == (17, 11)
    assert best.parts == (halves[0], halves[1], two, halves[2], halves[3])
    assert choose_parts(CallMemory(model, own_bytes=5)).parts == ()


def test_what_changes_what_it_is_given_is_no_part():
    class Careless(Waves):
        def forward(self, x):
            return super().forward(x.mul_(2))

    class Growing(Waves):
        def forward(self, given):
            given.append(super().forward(given[-1]))
            return given

    model = nn.Sequential(nn.Hardtanh(-9, 9), Careless(), *waves(3))
    with measure_kept(model) as whole:
        model(pictures(1, 4).requires_grad_())
    assert [call.can_recompute for call in whole.children] == [True, False, True, True, True]
    assert choose_parts(whole).parts == tuple(model[2:])
    with measure_kept(model := nn.Sequential(Growing(), Growing())) as whole:
        model([pictures(1, 4).requires_grad_()])
    assert [call.can_recompute for call in whole.children] == [False, False]


# ---- running again


def both_ways(model: nn.Module, parts, *inputs, again=nullcontext) -> list[list[torch.Tensor]]:
    """The model's output and the gradient of its sum by the inputs, without and with parts that run again."""
    found = []
    for chosen in ([], parts):
        leaves = [one.detach().clone().requires_grad_() for one in inputs]
        with checkpointed(chosen, again):
            output = model(*leaves)
        found.append([output.detach(), *torch.autograd.grad(output.sum(), leaves)])
    return found


def test_a_part_runs_once_forward_and_once_for_each_way_back():
    ran = []

    class Counted(Waves):
        def forward(self, x):
            ran.append(x.requires_grad)
            return super().forward(x)

    model, image = nn.Sequential(Counted(), Counted()), pictures(1, 4).requires_grad_()
    with untouched(model), checkpointed(list(model), nullcontext):
        score = model(image).sum()
    assert ran == [True] * 2
    first, second = (torch.autograd.grad(score, image, retain_graph=True)[0] for _ in range(2))
    assert ran == [True] * 6
    assert torch.equal(first, second)
    assert torch.equal(first, torch.autograd.grad(waves(2)(image).sum(), image)[0])
    ran.clear()
    with checkpointed(list(model), nullcontext), torch.no_grad():
        model(image)
    with checkpointed(list(model), nullcontext):
        model(image.detach())
    assert ran == [True, False, False, False]


def test_random_numbers_are_those_of_the_first_time_and_the_callers_go_on():
    class Noisy(nn.Module):
        def forward(self, x):
            return (x * torch.randn_like(x)).sin() + x.exp()

    model, image = nn.Sequential(Noisy(), Noisy()), pictures(1, 4)
    after = []
    for chosen in ([], list(model)):
        torch.manual_seed(3)
        leaf = image.clone().requires_grad_()
        with checkpointed(chosen, nullcontext):
            score = model(leaf).sum()
        between = torch.rand(1)
        after.append([score.detach(), *torch.autograd.grad(score, leaf), between, torch.rand(1)])
    assert all(map(torch.equal, *after))


def test_parts_may_be_handed_and_give_anything():
    class Pair(nn.Module):
        def forward(self, x, others, *, scale, twice):
            return {"sum": (x * scale).sin() + others[0].exp(), "score_from_layer": (others[1].cos(), twice)}

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair, self.end = Pair(), Waves()

        def forward(self, x, y):
            said = self.pair(x, [y, x], scale=y, twice=True)
            return self.end(said["sum"]) * said["score_from_layer"][0]

    model = Model()
    plain, again = both_ways(model, [model.pair, model.end], *(pictures(1, 4, seed=seed) for seed in (0, 1)))
    assert all(map(torch.equal, plain, again))


def test_a_list_that_is_filled_on_is_as_it_was():
    class Dense(nn.Module):
        def forward(self, given):
            return torch.cat(given, 1).mean(1, keepdim=True).sin().cos().exp()

    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(Dense() for _ in range(3))

        def forward(self, x):
            features = [x]
            for part in self.parts:
                features.append(part(features))
            return torch.cat(features, 1)

    model = Stage()
    plain, again = both_ways(model, [*model.parts], pictures(1, 4))
    assert all(map(torch.equal, plain, again))


def test_modules_are_again_what_they_were_when_they_ran():
    class Changed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("factor", torch.ones(()))

        def forward(self, x):
            return (x * self.factor).sin().exp()

    part, image = Changed(), pictures(1, 4).requires_grad_()
    own = part.factor
    part.factor = torch.tensor(3.0)
    with checkpointed([part], nullcontext):
        score = part(image).sum()
    part.factor = own
    with untouched(part):
        (gradient,) = torch.autograd.grad(score, image)
    expected = (3 * image).cos() * 3 * (3 * image).sin().exp()
    torch.testing.assert_close(gradient, expected.detach())


def test_an_error_leaves_nothing_behind():
    class Broken(Waves):
        def forward(self, x):
            raise KeyError("on purpose")

    model = nn.Sequential(Waves(), Broken())
    with untouched(model), pytest.raises(KeyError, match="on purpose"), checkpointed(list(model), nullcontext):
        model(pictures(1, 4).requires_grad_())


# ---- maps


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


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)])
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


# ---- what must be said


class Counting(nn.Module):
    """Says something else each time."""

    def __init__(self):
        super().__init__()
        self.runs = 0
        self.conv = seeded(nn.Conv2d(3, 4, 1))

    def forward(self, x):
        self.runs += 1
        return self.conv(x[:, :3]).sin().cos().exp() * self.runs


class Around(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        return self.parts(x).square().mean((2, 3))


@pytest.mark.parametrize(
    ("model", "method", "words"),
    [
        (Around(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), "saliency", "no part of the network stores much more"),
        (
            Around(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)),
            "rise",
            "no activations are stored for a backward pass",
        ),
        (
            Around(Counting(), Counting()),
            "saliency",
            "the parts of the network give a different output when they are recomputed",
        ),
    ],
)
def test_where_it_changes_nothing_that_is_said(model, method, words):
    model = model.double().eval()
    explain = Explainer(model, method=method, recompute=True, options={"samples": 20} if method == "rise" else {})
    explain.check(pictures(1, 16))
    assert f"--recompute has no effect here: {words}" in " ".join(explain.notes)
    assert explain.findings.plan.checkpointed_modules == ()
    assert not any("recompute" in note for note in Explainer(model, method="saliency").notes)


def test_parts_that_fail_when_they_run_again_are_left_as_they_are():
    class Once(Waves):
        """As modules do that keep something from one call to the next."""

        def __init__(self):
            super().__init__()
            self.turns: list[int] = []

        def forward(self, x):
            self.turns.append(1)
            return super().forward(x).sin() if len(self.turns) == 1 else super().forward(x)

    class Turning(Around):
        def forward(self, x):
            for part in self.parts:
                part.turns.clear()
            return super().forward(x)

    model = Turning(*(Once() for _ in range(4)))
    explain = Explainer(model, method="saliency", recompute=True)
    [[one]] = explain(pictures(1, 16), 1)
    assert "--recompute has no effect here: the parts of the network cannot be recomputed" in explain.notes[-1]
    [[plain]] = Explainer(model, method="saliency")(pictures(1, 16), 1)
    assert np.array_equal(one.map, plain.map)


@pytest.mark.filterwarnings("ignore")
def test_compiled_parts_are_left_as_they_are():
    model, image = Around(*(Waves() for _ in range(9))), pictures(1, 4)
    model.parts[1] = torch.jit.trace(Waves(), image)
    with measure_kept(model) as whole:
        model(image.requires_grad_())
    assert [call.can_recompute for call in whole.children] == [False]
    assert [call.module for call in whole.children[0].children] == [model.parts[0], *model.parts[2:]]
    plain, again = (Explainer(model, method="saliency", recompute=one)(image.detach(), 1) for one in (False, True))
    assert np.array_equal(plain[0][0].map, again[0][0].map)


def test_with_biases_kept_for_fullgrad_the_parts_still_add_up():
    class Blocks(Plain):
        def forward(self, x):
            return super().forward(F.silu(x))

    images = pictures(2, 16)
    plain, again = (Explainer(Blocks(), method="fullgrad", recompute=one)(images, 1) for one in (False, True))
    for [one], [other] in zip(plain, again, strict=True):
        assert np.abs(one.map - other.map).max() <= 1e-6 * np.abs(one.map).max()


# ---- from the shell


def test_from_the_shell_to_run_json(here, paint):
    paint("a.png", box=(4, 4, 20, 20))
    paint("b.png", box=(8, 0, 20, 20))
    asked = [
        "explain",
        "-m",
        "timm:test_vit",
        "--weights",
        "random",
        "--method",
        "saliency",
        "--save",
        "array",
        "a.png",
    ]
    result = CliRunner().invoke(app, [*asked, "b.png", "--out", "plain"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, [*asked, "b.png", "--out", "again", "--recompute"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "7 parts of the network, from 'blocks.0' on, are recomputed in the backward pass: about" in said
    assert facts("again")["job"]["recompute"] is True
    assert facts("again")["fingerprint"] == facts("plain")["fingerprint"]
    assert any("recomputed" in note for note in facts("again")["notes"])
    for name in ("a.png.untrained.npy", "b.png.untrained.npy"):
        one, other = np.load(Path("plain") / name), np.load(Path("again") / name)
        assert np.abs(one - other).max() <= 1e-6 * np.abs(one).max()
    # The environment says it too, and another run that keeps everything goes on where this one stopped.
    result = CliRunner().invoke(app, [*asked, "--out", "third"], env={"CAMCLI_RECOMPUTE": "1"})
    assert "recomputed" in " ".join(result.stderr.split())
    result = CliRunner().invoke(app, [*asked, "b.png", "--out", "third"])
    assert result.exit_code == 0
    assert "recomputed" not in result.stderr
    assert "1 done before" in " ".join(result.stderr.split())


def test_what_it_does_is_no_part_of_what_is_asked():
    assert Job(recompute=True).fingerprint == Job().fingerprint


def test_its_old_name_still_works_and_takes_no_file(here, paint, monkeypatch):
    paint("a.png")
    (here / "job.toml").write_text(
        'model = "timm:test_vit"\nweights = "random"\nmethod = "saliency"\ncheckpoint = true\n'
    )
    result = CliRunner().invoke(app, ["explain", "a.png", "--config", "job.toml", "--out", "one"])
    assert result.exit_code == 0, result.output
    assert "checkpoint is called recompute now" in result.stderr
    assert facts("one")["job"]["recompute"] is True
    result = CliRunner().invoke(app, ["explain", "a.png", "--checkpoint", "--out", "two", "--method", "saliency"])
    assert "--checkpoint is called --recompute now" in result.stderr
    assert facts("two")["job"]["recompute"] is True
    # What an earlier version wrote needs no word.
    (here / "run.json").write_text('{"job": {"model": "timm:test_vit", "weights": "random", "checkpoint": false}}')
    result = CliRunner().invoke(app, ["explain", "a.png", "--config", "run.json", "--out", "three"])
    assert result.exit_code == 0, result.output
    assert "called recompute" not in result.stderr
    (here / "job.toml").write_text('checkpoint = "best.ckpt"\n')
    result = CliRunner().invoke(app, ["explain", "a.png", "--config", "job.toml"])
    assert result.exit_code == 2
    assert "weights = 'best.ckpt'" in " ".join(result.stderr.split())
    with pytest.warns(FutureWarning, match="recompute"):
        assert list(camcli.explain("a.png", model="timm:test_vit", weights="random", checkpoint=True))
    with pytest.raises(RequestError, match="not a file") as caught:
        camcli.explain("a.png", checkpoint="best.ckpt")
    assert "weights='best.ckpt'" in caught.value.hint
