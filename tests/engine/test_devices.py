"""Devices: their names, and how a batch gets to one."""

from collections.abc import Callable

import pytest
import torch
from copies import CPU, ON_A_GPU
from networks import pictures
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine import devices


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the machine one with so many GPUs: ``machine(2)``, or with Apple's: ``machine(mps=True)``."""

    def machine(gpus: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return machine


@pytest.mark.parametrize(
    ("gpus", "words", "names"),
    [
        (0, "auto", ["cpu"]),
        (2, "auto", ["cuda:0"]),
        (2, "cuda", ["cuda:0"]),
        (2, "cuda:1", ["cuda:1"]),
        (2, "cuda:0,cuda:1", ["cuda:0", "cuda:1"]),
        (3, "cuda:2, cuda", ["cuda:2", "cuda:0"]),
        (3, "cuda:all", ["cuda:0", "cuda:1", "cuda:2"]),
        (1, "cuda:all", ["cuda:0"]),
        (1, "cuda:0,cuda:0", ["cuda:0", "cuda:0"]),
        (2, "cpu", ["cpu"]),
        (0, "cpu,cpu,cpu", ["cpu", "cpu", "cpu"]),
    ],
)
def test_names(machine, gpus: int, words: str, names: list[str]) -> None:
    machine(gpus)
    assert list(map(str, devices.parse_devices(words))) == names


@pytest.mark.parametrize(
    ("gpus", "words", "message", "hint"),
    [
        (0, "gpu", "there is no device 'gpu' here", "there are: auto, cpu"),
        (0, "cuda:all", "there is no device 'cuda:all' here", "there are: auto, cpu"),
        (2, "cuda:0,cuda:2", "there is no device 'cuda:2' here", "there are: auto, cpu, cuda:0, cuda:1, cuda:all"),
        (0, "cpu,", "there is no device '' here", "there are: auto, cpu"),
        (2, "auto,cuda:1", "combines auto, which chooses one, with others", "name each: cpu, cuda:0, cuda:1"),
        (1, "cuda:0,cpu", "names devices of several kinds, which round differently", "name devices of one kind"),
    ],
)
def test_what_cannot_be_says_why(machine, gpus: int, words: str, message: str, hint: str) -> None:
    machine(gpus)
    with pytest.raises(RequestError, match=message) as caught:
        devices.parse_devices(words)
    assert caught.value.hint.startswith(hint)


def test_one_gpu_of_apples_is_one(machine) -> None:
    machine(mps=True)
    assert list(map(str, devices.parse_devices("auto"))) == ["mps"]
    with pytest.raises(RequestError, match="names mps several times"):
        devices.parse_devices("mps,mps")


# ---- what goes to a GPU


def test_a_batch_for_the_cpu_is_the_images() -> None:
    images = [*pictures(3, 8)]
    batch = devices.stack_for(CPU, images)
    assert torch.equal(batch, torch.stack(images))
    assert devices.copy_to_module(nn.Linear(1, 1), batch).dtype == torch.float32
    # What counts with nothing of its own counts as its images do.
    copied = devices.copy_to_module(nn.Identity(), batch)
    assert copied.dtype == batch.dtype
    assert copied.data_ptr() != batch.data_ptr()


@pytest.mark.gpu
@ON_A_GPU
def test_a_batch_for_a_gpu_is_pinned_and_arrives_whole() -> None:
    images = [*pictures(64, 64).float()]
    gpu = torch.device("cuda:0")
    batch = devices.stack_for(gpu, images)
    assert batch.is_pinned()
    for dtype in (torch.float32, torch.bfloat16):
        found = devices.copy_to_module(nn.Linear(1, 1).to(gpu, dtype), batch)
        assert found.device == gpu
        assert torch.equal(found.cpu(), torch.stack(images).to(dtype))
