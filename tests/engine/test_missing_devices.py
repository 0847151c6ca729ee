"""Why a device is not here, in the answer to asking for it."""

import pytest
import torch

from camcli.base.errors import RequestError
from camcli.engine import check_device_words, devices


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without a GPU, whose PyTorch is built for CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def ask(words: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        devices.parse_devices(words)
    return caught.value


def test_a_build_for_the_cpu(no_gpu: pytest.MonkeyPatch) -> None:
    no_gpu.setattr(torch.version, "cuda", None)
    no_gpu.setattr(torch.version, "hip", None)
    error = ask("cuda")
    assert "there is no device 'cuda' here: this PyTorch" in error.message
    assert "built for the CPU only" in error.message
    assert error.hint.splitlines()[0] == "there are: auto, cpu"
    assert "pytorch.org" in error.hint


@pytest.mark.parametrize(
    ("raised", "reason", "hint"),
    [
        ("Found no NVIDIA driver on your system. Please check", "no NVIDIA driver is found", "docker run --gpus all"),
        ("The NVIDIA driver on your system is too old (found version 1)", "built for CUDA 12.6", "update the driver"),
        ("CUDA unknown error", "PyTorch cannot use one: CUDA unknown error", "nvidia-smi"),
        ("", "PyTorch finds a driver and no GPU", "nvidia-smi"),
    ],
)
@pytest.mark.parametrize("word", ["cuda", "cuda:3", "gpu", "0"])
def test_what_cuda_says(no_gpu: pytest.MonkeyPatch, word: str, raised: str, reason: str, hint: str) -> None:
    def start() -> None:
        if raised:
            raise RuntimeError(raised)

    no_gpu.setattr(torch.cuda, "init", start)
    error = ask(word)
    assert reason in error.message
    assert hint in error.hint


def test_gpus_that_are_hidden(no_gpu: pytest.MonkeyPatch) -> None:
    no_gpu.setenv("CUDA_VISIBLE_DEVICES", "")
    error = ask("cuda")
    assert "CUDA_VISIBLE_DEVICES is '', which hides all GPUs" in error.message
    assert "unset CUDA_VISIBLE_DEVICES" in error.hint


def test_a_gpu_by_its_number(no_gpu: pytest.MonkeyPatch) -> None:
    no_gpu.setattr(torch.cuda, "is_available", lambda: True)
    no_gpu.setattr(torch.cuda, "device_count", lambda: 1)
    assert "did you mean 'cuda:0'?" in ask("0").hint
    assert "a GPU is named cuda" in ask("gpu").hint


@pytest.mark.parametrize("word", ["tpu", "cpuu", "cuda,xla"])
def test_a_word_for_no_device_needs_no_look(word: str) -> None:
    with pytest.raises(RequestError, match="there is no device"):
        check_device_words(word)


@pytest.mark.parametrize("words", ["auto", "cpu", "cuda:0,cuda:1", "cuda:all", "mps", "cpu, cpu", "0", "GPU"])
def test_a_word_for_a_device_is_left_to_the_machine(words: str) -> None:
    check_device_words(words)
