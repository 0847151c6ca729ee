"""Half precision changes the network's arithmetic, and the maps of gradients at a layer hardly."""

from pathlib import Path

import numpy as np
import pytest
import torch

import camcli
from camcli.engine.precision import note_precision
from camcli.methods import METHODS
from camcli.runs.job.job import Job
from camcli.runs.worker.worker import Worker

AT_A_LAYER = [row.name for row in METHODS.builtin_rows if row.kind == "gradient"]


@pytest.mark.slow
def test_maps_in_bf16_are_those_in_fp32_for_every_gradient_method(sample_images):
    maps = {}
    for precision in ("fp32", "bf16"):
        # The noise of Smooth Grad-CAM++ is the same in both.
        for one in camcli.explain(sample_images, method=AT_A_LAYER, precision=precision):
            maps[precision, one.method, Path(one.source).name] = one
    assert len(maps) == 2 * 7 * len(AT_A_LAYER)
    for (precision, method, picture), one in maps.items():
        if precision == "bf16":
            exact = maps["fp32", method, picture]
            assert one.index == exact.index
            alike = np.corrcoef(one.map.ravel(), exact.map.ravel())[0, 1]
            assert alike >= 0.99, f"{method} on {picture}: {alike:.4f}"


EMULATED = {"x86_64": {"avx512_bf16": False, "amx_bf16": False, "avx2": True}, "arm64": {"bf16": False, "neon": True}}
NATIVE = {"amx": {"avx512_bf16": False, "amx_bf16": True}, "zen 4": {"avx512_bf16": True}, "arm64": {"bf16": True}}


@pytest.mark.parametrize("processor", EMULATED)
def test_a_processor_without_instructions_for_bf16_is_noted(monkeypatch, processor):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: EMULATED[processor], raising=False)
    (note,) = note_precision("bf16", torch.device("cpu"))
    assert "no instructions for bf16" in note
    assert "--precision fp32" in note
    # Of a GPU, and of what is not asked for, nothing is said.
    assert note_precision("bf16", torch.device("cuda")) == []
    assert note_precision("fp32", torch.device("cpu")) == note_precision("fp16", torch.device("cpu")) == []


@pytest.mark.parametrize("processor", NATIVE)
def test_a_processor_with_instructions_for_bf16_is_not_noted(monkeypatch, processor):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: NATIVE[processor], raising=False)
    assert note_precision("bf16", torch.device("cpu")) == []


def test_nothing_is_said_of_a_processor_of_which_nothing_is_known(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "s390x"}, raising=False)
    assert note_precision("bf16", torch.device("cpu")) == []
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert note_precision("bf16", torch.device("cpu")) == []


def test_a_run_in_emulated_bf16_says_so_at_its_start(monkeypatch, tiny):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: EMULATED["x86_64"], raising=False)
    worker = Worker(Job(model=tiny, layers=("stem",), device="cpu", precision="bf16"))
    assert any("no instructions for bf16" in note for note in worker.notes)
