"""Parts computed again on the way back: which, how often, and that nothing is left behind."""

from contextlib import nullcontext

import pytest
import torch
from networks import pictures, seeded, untouched
from torch import nn
from waves import Waves

from camcli.engine.hooks.checkpointing import CallMemory, checkpointed, choose_parts, measure_kept
from camcli.engine.hooks.state import frozen

UNIT = 8 * 3 * 4 * 4  # bytes of an image of these tests, in float64


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
