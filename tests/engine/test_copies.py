"""Copies of a network that do not know of one another: in two threads, with plans of their own, or refused."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from copies import CPU
from networks import Small, explainer, named, pictures, same, small
from torch import nn

from camcli import Explainer
from camcli.base.errors import RequestError
from camcli.engine.hooks.attention_override import twice_differentiable
from camcli.engine.layers.probe import probe_image
from camcli.engine.speed.tune import copy_to
from camcli.methods import METHODS


def both_at_once(one: Callable[[], object], other: Callable[[], object], turns: int = 4) -> tuple[list, list]:
    """What two functions give that begin at the same time, again and again."""
    start = threading.Barrier(2, timeout=30)
    found: tuple[list, list] = ([], [])
    trouble: list[BaseException] = []

    def go(run: Callable[[], object], into: list) -> None:
        try:
            for _ in range(turns):
                start.wait()
                into.append(run())
        except BaseException as error:
            trouble.append(error)
            start.abort()

    threads = [threading.Thread(target=go, args=pair) for pair in zip((one, other), found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if trouble:
        raise trouble[0]
    return found


def alone_and_at_once(explain: Explainer, images: torch.Tensor, targets: object) -> None:
    """See that an explainer and its copy say to the bit, at the same time, what the first says alone."""
    wanted = [explain(one[None], targets) for one in images]
    copy = copy_to(explain, CPU, probe_image(tuple(images.shape[2:]), images.dtype, CPU))
    assert not {id(one) for one in explain.module.modules()} & {id(one) for one in copy.module.modules()}
    first, second = iter([*images] * 2), iter([*images] * 2)
    found = both_at_once(
        lambda: explain(next(first)[None], targets), lambda: copy(next(second)[None], targets), 2 * len(images)
    )
    for some in found:
        for [[one]], [[other]] in zip(some, wanted * 2, strict=True):
            assert np.array_equal(one.map, other.map)
            assert (one.score, one.notes) == (other.score, other.notes)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS.names())
def test_two_explainers_in_two_threads_do_not_disturb_each_other(method: str) -> None:
    alone_and_at_once(explainer(small(method), method), pictures(3, 16), 1)


@pytest.mark.parametrize("method", ["gradcam", "guided-backprop", "fullgrad"])
def test_nor_where_parts_are_computed_again(method: str) -> None:
    layers = [] if method in ("guided-backprop", "fullgrad") else ["conv1"]
    alone_and_at_once(Explainer(small(method), layers=layers, method=method, recompute=True), pictures(3, 16), 1)


def test_nor_at_other_sizes_and_in_a_mirror() -> None:
    explain = Explainer(Small(), layers=["conv2"], scales=(1.0, 1.5), flips=("flip",), eigen_smooth=True)
    alone_and_at_once(explain, pictures(3, 16), 1)


class Fused(Small):
    """Attention fused, of which the second gradient is wanted; ``meanwhile`` is called before it."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = lambda: None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.conv2(self.conv1(images)).flatten(2).transpose(1, 2)[:, None]
        self.meanwhile()
        return F.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2))[:, :4]


def test_curvature_through_fused_attention_is_had_in_every_thread() -> None:
    explain, image = Explainer(Fused(), layers=["conv2"], method="shapleycam"), pictures(1, 16)
    [[wanted]] = explain(image, 1)
    copy = copy_to(explain, CPU, probe_image((16, 16), torch.float64, CPU))
    begun, both, ended = threading.Event(), threading.Event(), threading.Event()
    # The first to begin ends while the other is half-way, and with it what it had switched.
    explain.module.meanwhile = lambda: (begun.set(), both.wait(5))
    copy.module.meanwhile = lambda: (both.set(), ended.wait(5))
    found = both_at_once(
        lambda: (explain(image, 1), ended.set())[0], lambda: (begun.wait(5), copy(image, 1))[1], turns=1
    )
    for [[[one]]] in found:
        assert np.array_equal(one.map, wanted.map)


def test_the_switch_of_fused_attention_is_turned_back_by_the_last_to_leave() -> None:
    flash = torch.backends.cuda.flash_sdp_enabled
    before = flash()
    outer, inner = twice_differentiable(), twice_differentiable()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)  # as another thread would, which began first
    assert not flash()
    inner.__exit__(None, None, None)
    assert flash() == before


def test_a_copy_knows_layers_and_labels_and_has_plans_of_its_own() -> None:
    explain = Explainer(named(Small(), 4, 16))
    image = probe_image((16, 16), torch.float64, CPU)
    explain.check(image)
    copy = copy_to(explain, CPU, image)
    assert copy.layers == explain.layers
    assert copy.layouts == explain.layouts
    assert copy.notes == explain.notes
    assert copy.network is not None
    assert copy.network.module is copy.module is not explain.module
    [[one]] = copy(pictures(1, 16), 0)
    same(one, explain(pictures(1, 16), 0)[0][0])


class Bound(Small):
    """Holds on to its own modules by a function, which a copy of it shares."""

    def __init__(self) -> None:
        super().__init__()
        own = self.conv1
        self.first = lambda images: own(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images + 0 * self.first(images).mean())


def test_a_network_whose_copies_run_its_own_modules_is_refused() -> None:
    with pytest.raises(RequestError, match="still runs modules of the original: 'conv1'"):
        copy_to(Explainer(Bound(), layers=["conv2"]), CPU, probe_image((16, 16), torch.float64, CPU))


class Remembering(Small):
    """What it says takes in what a hook heard, and the hook is a function that no copy has as its own."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: dict[str, torch.Tensor] = {}

        def hear(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            self.heard["conv1"] = output.detach().mean((1, 2, 3))

        self.conv1.register_forward_hook(hear)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        said = super().forward(images)
        return said + self.heard["conv1"][:, None]


def test_a_network_whose_copies_remember_in_it_is_refused() -> None:
    first = Explainer(Remembering(), layers=["conv2"])
    noise = probe_image((16, 16), torch.float64, CPU)
    first.check(noise)
    with pytest.raises(RequestError, match="the copied network gives a different output"):
        copy_to(first, CPU, noise)


def test_a_copy_holds_all_of_the_first_and_nothing_of_it() -> None:
    first = Explainer(Small(), layers=["conv2"])
    first.module.conv1.weight.requires_grad_(False)
    first.module.register_buffer("more", torch.ones(2), persistent=False)
    second = copy_to(first, CPU, probe_image((16, 16), torch.float64, CPU))
    held, copied = ([*one.module.named_parameters(), *one.module.named_buffers()] for one in (first, second))
    for (name, one), (again, other) in zip(held, copied, strict=True):
        assert name == again
        assert torch.equal(one, other), name
        assert one.data_ptr() != other.data_ptr(), name
        assert (one.requires_grad, type(one)) == (other.requires_grad, type(other)), name
