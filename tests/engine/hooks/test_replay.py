"""Running only what comes behind a layer gives what the whole network gives, and leaves nothing behind."""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from networks import Small, pictures, seeded, unruly, untouched
from torch import nn

from camcli import Explainer
from camcli.engine.checks.rerun import prepare_replay
from camcli.engine.forward import Plan, Runner
from camcli.engine.layers.layout import Layout, from_nchw, to_nchw
from camcli.targets.readers.spec import DEFAULT_OUTPUT_SPEC


def both(bring, model, layer, images, whole=False, call=0):
    """The scores by replaying and by running the whole network, of variants of what a layer says."""
    found = {}

    def compare(act, score_from_layer):
        noise = torch.Generator().manual_seed(5)
        masks = [torch.rand(1, act.shape[1], 1, 1, generator=noise).to(act) for _ in range(5)]
        found["score_from_layer"] = torch.stack(list(score_from_layer([act, *(act * mask for mask in masks), act * 0])))
        return act.sum(1)

    explain = Explainer(model, layers=[layer], method=bring(compare), batch_size=4, call=call)
    with untouched(model):
        explain(images, [1, 2, 3][: len(images)])
        replays, notes = found["score_from_layer"], explain.notes
        plan = explain.findings.plans[1, images.shape[2], images.shape[3]]
        assert plan.replay_plans[layer].whole_network == whole, notes
        assert any("whole network runs for each" in note for note in notes) == whole
        plan.replay_plans[layer] = type(plan.replay_plans[layer])(whole_network=True)
        explain(images, [1, 2, 3][: len(images)])
    scale = found["score_from_layer"].abs().max()
    assert (replays - found["score_from_layer"]).abs().max() <= 1e-9 * scale
    own = model(images).detach()[range(len(images)), [1, 2, 3][: len(images)]]
    torch.testing.assert_close(replays[0], own)
    assert (replays[0] - replays[-1]).abs().min() > 0
    return explain


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("layer", ["conv1", "norm1", "relu1", "pool", "conv2", "relu2"])
def test_every_layer_of_a_small_network(bring, layer, images):
    both(bring, Small().eval(), layer, pictures(images, 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("resnet18", "layer3.0.conv1", 64),
        ("resnet18", "layer4", 64),
        ("resnet18", "relu", 64),
        ("densenet121", "features.denseblock4.denselayer16", 64),
        ("densenet121", "features.denseblock3.denselayer2.conv1", 64),
        ("swin_t", "features.5.1", 64),
    ],
)
def test_replays_of_torchvision(bring, name, layer, size):
    model = torchvision.models.get_model(name, weights=None).double().eval()
    both(bring, model, layer, pictures(2, size))


@pytest.mark.parametrize(
    ("name", "layer", "size", "more"),
    [
        ("test_vit", "blocks.5.norm1", 160, {}),
        ("test_vit", "blocks.2", 160, {}),
        ("swin_tiny_patch4_window7_224", "layers.3.blocks.0.norm1", 56, {"window_size": 7, "depths": (1, 1, 1, 1)}),
        ("test_convnext", "stages.2", 64, {}),
        ("test_efficientnet", "blocks.1", 64, {}),
    ],
)
def test_replays_of_timm(bring, name, layer, size, more):
    given = {"img_size": size, **more} if "swin" in name else more
    model = seeded(timm.create_model(name, **given))
    both(bring, model, layer, pictures(2, size))


def test_a_layer_that_runs_several_times(bring):
    class Thrice(Small):
        def forward(self, x):
            x = self.pool(F.relu(self.conv1(x)))
            x = self.conv2(x)
            for _ in range(3):
                x = self.relu2(x - 0.1).square()
            return self.fc(x.mean((2, 3)))

    model = Thrice()
    for call in (1, 2, 3):
        both(bring, model, "relu2", pictures(2, 16), call=call)


def test_a_block_that_runs_several_times_with_the_layer_inside(bring):
    class Recurrent(Small):
        def __init__(self):
            super().__init__()
            self.block = seeded(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.Tanh()))

        def forward(self, x):
            x = self.conv2(self.pool(self.conv1(x)))
            for _ in range(3):
                x = x + self.block(x)
            return self.fc(x.square().mean((2, 3)))

    both(bring, Recurrent(), "block.0", pictures(2, 16), call=2)


def test_in_place_changes_behind_a_recorded_module_do_no_harm(bring):
    class InPlace(Small):
        def forward(self, x):
            x = self.pool(self.conv1(x.mul_(0.5)))
            x.add_(1)
            y = self.conv2(x.clone())
            x.mul_(2)
            return self.fc((self.relu2(y) + x.sum(1, keepdim=True)).square().mean((2, 3)))

    both(bring, InPlace(), "conv2", pictures(1, 16))
    both(bring, InPlace(), "conv2", pictures(3, 16))


def test_what_cannot_be_replayed_runs_whole_and_says_so(bring):
    class Batched(Small):
        """What its first module gives does not go by images."""

        def __init__(self):
            super().__init__()
            self.table = seeded(nn.Conv2d(3, 6, 1))

        def forward(self, x):
            scale = self.table(torch.ones(1, 3, 1, 1, dtype=x.dtype)).reshape(6, 1)
            x = self.conv2(self.pool(self.conv1(x)))
            return self.fc(x.square().mean((2, 3))) + scale.sum()

    class Sized(Small):
        """It looks at how many images a module has answered for."""

        def forward(self, x):
            x = self.pool(self.conv1(x))
            count = len(x)
            return self.fc(self.conv2(x).square().mean((2, 3))[:count])

    both(bring, Sized(), "conv2", pictures(1, 16))
    both(bring, Batched(), "conv2", pictures(1, 16), whole=True)
    both(bring, Hooked(), "conv2", pictures(1, 16), whole=True)


class Hooked(Small):
    """A hook changes what a module says, and would change it twice."""

    def __init__(self):
        super().__init__()
        self.twice = seeded(nn.Conv2d(3, 6, 1))
        self.twice.register_forward_hook(lambda module, inputs, output: output * 1.5)

    def forward(self, x):
        aside = self.twice(x).mean((2, 3), keepdim=True)
        return self.fc((self.conv2(self.pool(self.conv1(x))) + aside).square().mean((2, 3)))


def test_only_what_lies_behind_runs_again_and_in_one_pass_for_all_images(bring):
    class Counted(Small):
        def __init__(self):
            super().__init__()
            self.runs = {"conv1": [], "conv2": [], "fc": []}
            for name, runs in self.runs.items():
                part = self.get_submodule(name)
                part.forward = self.counting(part.forward, runs)

        def counting(self, own, runs):
            def forward(x):
                runs.append(len(x))
                return own(x)

            return forward

    model = Counted()
    method = bring(lambda act, score_from_layer: act.sum(1) + 0 * sum(score_from_layer([act] * 40))[:, None, None], "m")
    explain = Explainer(model, layers=["relu1"], method=method, batch_size=8)
    explain.check(pictures(1, 16))
    for runs in model.runs.values():
        runs.clear()
    explain(pictures(2, 16), 1)
    # The largest output is the layer's own, so the chunk is the 8 rows: 4 variants of each of 2 images.
    assert model.runs == {"conv1": [2], "conv2": [2, *[8] * 10], "fc": [2, *[8] * 10]}
    explain = Explainer(model, layers=["relu2"], method=method, batch_size=8)
    explain.check(pictures(1, 16))
    for runs in model.runs.values():
        runs.clear()
    explain(pictures(2, 16), 1)
    # Behind relu2 an output is 6 x 8 x 8, before it 5 x 16 x 16, which is 3.3 times as much: 24 rows.
    assert model.runs == {"conv1": [2], "conv2": [2], "fc": [2, 24, 24, 24, 8]}


def test_the_scores_answers_can_be_changed_in_place(bring):
    def changes(act, score_from_layer):
        for score in score_from_layer([act, act]):
            score -= 1
        return act.sum(1)

    Explainer(Small(), layers=["conv2"], method=bring(changes))(pictures(1, 16))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_modules_are_as_before_after_an_error_in_a_replay(bring, error):
    model = unruly(Small())
    fails = []

    def perhaps(module, inputs):
        if fails:
            fails.pop()()

    model.relu2.register_forward_pre_hook(perhaps)

    def fail():
        raise error("inside")

    def asks(act, score_from_layer):
        fails.append(fail)
        return act.sum(1) + sum(score_from_layer([act]))[:, None, None]

    explain = Explainer(model, layers=["conv2"], method=bring(asks))
    explain.check(pictures(1, 16))
    with untouched(model), pytest.raises(error, match="inside"):
        explain(pictures(2, 16), 1)
    # A module whose forward was replaced by its owner keeps the owner's.
    own = model.conv1.forward
    model.conv1.forward = own
    fails.clear()
    again = bring(lambda act, score_from_layer: next(score_from_layer([act]))[:, None, None] + act[:, 0], "again")
    with untouched(model):
        Explainer(model, layers=["conv2"], method=again)(pictures(1, 16))
    assert vars(model.conv1)["forward"] == own


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 5, 3, 4), Layout("nchw", (3, 4))),
        ((2, 3, 4, 5), Layout("nhwc", (3, 4))),
        ((2, 15, 5), Layout("tokens", (3, 4), 1, 2)),
        ((2, 5, 14), Layout("ncl", (3, 4), 2, 0)),
        ((2, 12, 5), Layout("tokens", (3, 4))),
    ],
)
def test_restored_is_the_inverse_of_canonical(shape, layout):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(from_nchw(to_nchw(tensor, layout), layout, tensor), tensor)
    # Several variants of each image, those of the first image first.
    cells = to_nchw(tensor, layout)
    several = from_nchw(torch.stack([cells, 2 * cells], 1).flatten(0, 1), layout, tensor)
    assert torch.equal(several[0::2], tensor)
    assert torch.equal(to_nchw(several[1::2], layout), 2 * cells)
    if layout.order == "tokens" and layout.prefix:
        assert torch.equal(several[1::2][:, :1], tensor[:, :1])


def test_half_precision_comes_back_as_it_was(bring):
    method = bring(lambda act, score_from_layer: act[:, 0] + next(score_from_layer([act]))[:, None, None], "m")
    [[one]] = Explainer(Small().to(torch.bfloat16), layers=["conv2"], method=method)(pictures(1, 16), 1)
    assert one.map.dtype == "float32"


def test_the_plan_is_of_one_layer_and_size():
    runner = Runner(
        Small(), lambda output, images: DEFAULT_OUTPUT_SPEC.read(output, images), frozenset({"score_from_layer"})
    )
    plan = Plan(layouts={"conv2": Layout("nchw", (8, 8))}, calls={"conv2": 1})
    with runner.ready():
        assert prepare_replay(runner, plan, "conv2", pictures(1, 16)) == ""
    assert not plan.replay_plans["conv2"].whole_network
