"""A process that builds its tensors elsewhere (``torch.set_default_device``), and what a device is fed with."""

import numpy as np
import pytest
import torch
from networks import Small, Stacked, pictures, seeded
from pooled_network import Pooled

import camcli
from camcli import Explainer, Job
from camcli.engine import devices
from camcli.methods import METHODS
from camcli.runs.worker.resolve import make_similarity_network
from camcli.runs.worker.worker import Worker

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ATTENDING = ("rollout", "gae", "attention", "legrad", "grad-eclip", "maskclip")
OPTIONS = {
    "rise": {"samples": 16},
    "sobol": {"designs": 4, "cells": 2},
    "hsic": {"samples": 8, "cells": 2},
    "opti-cam": {"steps": 3},
    "ss-cam": {"samples": 2},
    "is-cam": {"samples": 2},
    "smoothgrad": {"samples": 2},
}
# Those that a test of their own has, or that need prompts.
LEFT_OUT = ("clip-surgery", "m2ib", "fullgrad")


@pytest.fixture
def elsewhere():
    """Has tensors made where they have no values, unless somebody says where: a trap for all who do not."""
    yield lambda: torch.set_default_device("meta")
    torch.set_default_device(None)


@pytest.mark.parametrize("method", [row.name for row in METHODS.builtin_rows if row.name not in LEFT_OUT])
def test_no_map_changes(method, elsewhere):
    model = Stacked() if method in ATTENDING else Pooled() if method == "cam" else Small()
    seeded(model, dtype=torch.float32)
    images = pictures(2, 16, dtype=torch.float32)
    given = {"options": OPTIONS.get(method, {}), "layers": ["relu2"] if method == "cam" else []}
    before = Explainer(model, method=method, **given)(images, 1)
    elsewhere()
    after = Explainer(model, method=method, **given)(images, 1)
    for [one], [other] in zip(before, after, strict=True):
        assert one.map.any()
        assert np.array_equal(one.map, other.map)


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"target": "similar:{}"},
        {"method": "dff"},
        {"group": 2, "wrap": "{}"},
        {"scales": "0.9,1", "augment": ["flip"]},
        {"weights": "random", "precision": "bf16"},
    ],
    ids=lambda asked: next(iter(asked), "plain"),
)
def test_no_run_changes(sample_images, tmp_path, asked, elsewhere):
    names = [sample_images / "chelsea.png", sample_images / "coffee.png"]
    (tmp_path / "wrap.py").write_text(
        "def plain(network):\n    import torch\n    return torch.nn.Sequential(network)\n"
    )
    fill = {"target": names[1], "wrap": f"{tmp_path / 'wrap.py'}:plain"}
    asked = {name: value.format(fill.get(name)) if isinstance(value, str) else value for name, value in asked.items()}
    before = list(camcli.explain(names, device="cpu", **asked))
    elsewhere()
    after = list(camcli.explain(names, device="cpu", **asked))
    assert len(after) == len(before) >= 2
    assert all(np.array_equal(one.map, other.map) for one, other in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cores", "several", "threads"),
    [(16, [CPU], 4), (2, [CPU], 2), (16, [CPU, CPU], 4), (16, [GPU], 16), (96, [GPU, GPU], 32), (8, [GPU, GPU], 8)],
)
def test_a_gpu_is_fed_by_as_many_threads_as_there_are_cores(monkeypatch, cores, several, threads):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert devices.count_decoders(several) == threads
    assert Worker(Job(device="cpu")).workers == min(4, cores)


def test_a_reference_goes_where_the_network_is_and_as_it_counts(sample_images):
    """Of a network in double precision, as of one on another device, what it is handed is not what was decoded."""
    network = camcli.load("bundled:efficientnet-lite0", head="none")
    plain = make_similarity_network(network, [str(sample_images / "chelsea.png")], Job())
    network.module.double()
    wide = make_similarity_network(network, [str(sample_images / "chelsea.png")], Job())
    assert torch.allclose(plain.output_spec.references, wide.output_spec.references.float(), atol=1e-4)
