"""What is compiled, what is left alone, and that whatever a compiler does the maps stay as they are."""

import shutil
import time

import numpy as np
import pytest
import torch
from torch import nn

from camcli import Explainer
from camcli.engine.layers.probe import probe_image
from camcli.engine.speed import compiling
from camcli.engine.speed.tune import compile_prefix
from camcli.runs.job.job import Job
from camcli.runs.worker.worker import Worker


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
        self.last, self.fc = nn.Conv2d(8, 6, 3), nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.last(self.second(self.first(x).relu())).relu().mean((2, 3)))


def noise(count: int) -> torch.Tensor:
    return probe_image((16, 16), torch.float32, torch.device("cpu"), count)


@pytest.fixture
def quick(monkeypatch):
    """In the place of the compiler: calls are counted, and a network whose parts run so seems faster."""
    calls = []

    def compile(function, dynamic):
        assert dynamic is False

        def ran(*inputs, **named):
            assert not torch.is_grad_enabled()
            calls.append(len(inputs[0]))
            return function(*inputs, **named)

        return ran

    times = iter([2.0, 1.0] * 10)
    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(compiling, "time_run", lambda run: (run(), next(times)))
    return calls


def test_the_largest_parts_up_to_the_layer_are_compiled_and_others_not(quick):
    explainer = Explainer(Deep().eval(), layers=["last"])
    before = [one.map for (one,) in explainer(noise(4), 1)]
    done = compile_prefix(explainer, noise(4))
    assert done.parts == ("first", "second", "last")
    assert (done.seconds_before, done.seconds_after, done.reason) == (2.0, 1.0, "")
    quick.clear()
    assert all(map(np.array_equal, before, (one.map for (one,) in explainer(noise(4), 1))))
    assert quick == [4, 4, 4]
    # Batches of another size go through the modules' own code.
    quick.clear()
    [[one]] = explainer(noise(4)[:1], 1)
    assert np.allclose(one.map, before[0], atol=1e-6)
    assert quick == []


def test_what_takes_too_little_to_be_worth_it_is_not_compiled(quick):
    explainer = Explainer(Deep().eval(), layers=["last"])
    assert (
        compile_prefix(explainer, noise(4), min_seconds=2.5).reason
        == "a batch takes 2000 ms, and compiling pays from 2500 ms on"
    )
    explainer(noise(4), 1)
    assert quick == []
    assert "forward" not in vars(explainer.module.first)


@pytest.mark.parametrize(
    ("compile", "pictures", "asked", "least"),
    [
        ("auto", 10, None, 0),  # whatever a single image took, ten of them take no hour
        ("auto", 10**9, "auto", 3600 * 16 / 10**9),
        ("auto", None, None, 0),
        ("on", 10, "on", 0),
        ("off", 10**9, None, 0),
    ],
)
def test_compiling_is_tried_unasked_where_the_run_is_long(compile, pictures, asked, least, tiny, monkeypatch):
    asked_for = []

    def tried(explainer, images, min_seconds=0.0):
        asked_for.append((len(images), min_seconds))
        return compiling.CompileReport(reason="not today")

    monkeypatch.setattr("camcli.runs.worker.resources.compile_prefix", tried)
    monkeypatch.setattr("camcli.runs.worker.resources.COMPILE_FROM_SECONDS", 3600)
    worker = Worker(Job(model=tiny, device="cpu", compile=compile), total=pictures)
    assert asked_for == ([(16, pytest.approx(least))] if asked else [])
    assert ("nothing is compiled: not today" in worker.notes) == (compile == "on")


def test_only_what_lies_before_the_first_layer_is_compiled(quick):
    assert compile_prefix(Explainer(Deep().eval(), layers=["second", "last"]), noise(2)).parts == ("first", "second")


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("saliency", "no layer is explained"),
        ("guided-gradcam", "passes every part of the network"),
        ("fullgrad", "no layer is explained"),
    ],
)
def test_what_needs_a_gradient_everywhere_is_not_compiled(method, why):
    assert why in compile_prefix(Explainer(Deep().eval(), method=method), noise(2)).reason


def test_what_a_compiler_cannot_do_is_said_and_the_network_runs(monkeypatch):
    def compile(function, dynamic):
        def fails(*_):
            raise OSError("there is no g++ here\nand more")

        return fails

    monkeypatch.setattr(torch, "compile", compile)
    explainer = Explainer(Deep().eval(), layers=["last"])
    before = explainer(noise(2), 1)[0][0].map
    assert compile_prefix(explainer, noise(2)).reason == "there is no g++ here"
    assert np.array_equal(explainer(noise(2), 1)[0][0].map, before)
    assert not any("forward" in vars(module) for module in explainer.module.modules())


@pytest.mark.parametrize(
    ("wrong", "slow", "reason"), [(True, False, "gives a different output"), (False, True, "not faster")]
)
def test_what_is_wrong_or_no_faster_is_taken_back(monkeypatch, wrong, slow, reason):
    def compile(function, dynamic):
        def ran(*inputs):
            time.sleep(0.02 * slow)
            return function(*inputs) * (1.01 if wrong else 1)

        return ran

    monkeypatch.setattr(torch, "compile", compile)
    explainer = Explainer(Deep().eval(), layers=["last"])
    assert reason in compile_prefix(explainer, noise(2)).reason
    assert not any("forward" in vars(module) for module in explainer.module.modules())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_compiled_in_earnest_the_maps_are_the_same(dtype, near, monkeypatch):
    # Whether it is faster is not asked here.
    seconds = iter([2.0, 1.0])
    monkeypatch.setattr(compiling, "time_run", lambda run: (run(), next(seconds)))
    explainer = Explainer(Deep().eval().to(dtype), layers=["last"], method=["gradcam", "hirescam"])
    before = [one.map for some in explainer(noise(4), 1) for one in some]
    assert compile_prefix(explainer, noise(4)).parts == ("first", "second", "last")
    after = [one.map for some in explainer(noise(4), 1) for one in some]
    for one, other in zip(before, after, strict=True):
        assert np.abs(one - other).max() <= near * np.abs(one).max()


@pytest.mark.parametrize(
    ("dtype", "off", "fits"),
    [
        (torch.float32, 1e-3, False),
        (torch.bfloat16, 0.01, True),
        (torch.bfloat16, 0.2, False),
        (torch.float16, 0.02, False),
    ],
)
def test_what_compiled_code_may_be_off_by_is_rounding_of_the_weights(dtype, off, fits, quick, monkeypatch):
    network = Deep().eval().to(dtype)
    said = iter([torch.ones(1, 5), torch.ones(1, 5) + off])
    times = iter([2.0, 1.0])
    monkeypatch.setattr(compiling, "time_run", lambda run: (next(said), next(times)))
    done = compiling.compile_modules(network, "last", 1, lambda: network(noise(1).to(dtype)).float())
    assert bool(done.parts) == fits
    assert ("gives a different output" in done.reason) == (not fits)
