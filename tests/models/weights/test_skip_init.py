"""Networks built without drawing random weights: every value is the one that it would have been."""

import threading

import numpy as np
import open_clip
import pytest
import timm
import torch
import torchvision
from clips import tiny_clip
from module_tensors import different
from torch import nn

import zoo
from camcli.models import load
from camcli.models.weights import skip_init


class Calls:
    """Builds a network, and counts how often."""

    def __init__(self, make):
        self.make, self.count = make, 0

    def __call__(self):
        self.count += 1
        return self.make()


def both(make):
    """A network as usual, the same by `built`, and how often that had to build it."""
    torch.manual_seed(5)
    plain = make()
    torch.manual_seed(5)
    calls = Calls(make)
    return plain, skip_init.build_without_init(calls), calls.count


def filled(module, strict=True, without=()):
    """The module with a weight of 0, 1, 2 ... in every place of its state dict that is not left out."""
    state = {
        name: torch.arange(value.numel(), dtype=value.dtype).reshape(value.shape)
        for name, value in module.state_dict().items()
        if not name.startswith(tuple(without))
    }
    module.load_state_dict(state, strict=strict)
    return module


class Net(nn.Module):
    """A layer of each kind of initialiser, and a table that is computed."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.head = nn.Linear(4, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 4) * 0.02)
        self.gamma = nn.Parameter(1e-5 * torch.ones(4))
        self.register_buffer("index", torch.arange(16).reshape(4, 4) ** 2, persistent=False)
        self.table = [torch.linspace(0, 1, 5).outer(torch.ones(2))]
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.trunc_normal_(self.conv.weight, mean=5.0, std=1.0, a=7.0, b=8.0)  # drawn by its other way
        timm.layers.trunc_normal_tf_(self.attention.out_proj.weight, std=0.02)


def test_what_a_file_replaces_is_not_drawn():
    plain, made, count = both(lambda: filled(Net()))
    assert count == 1
    assert not different(plain, made)


def test_draws_are_left_out():
    follower = skip_init.UninitializedTracker()
    before = torch.random.get_rng_state()
    with follower:
        weight = torch.empty(3, 4).normal_()
        weight.uniform_().erfinv_().mul_(2).clamp_(0, 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert follower.any_left()
    del weight
    assert not follower.any_left()


@pytest.mark.parametrize("without", ["conv.", "token", "attention.in_proj_bias"])
def test_what_the_file_lacks_is_as_usual(without):
    plain, made, _count = both(lambda: filled(Net(), strict=False, without=[without]))
    assert not different(plain, made)


def test_what_the_file_lacks_and_is_not_random_needs_no_second_time():
    plain, made, count = both(lambda: filled(Net(), strict=False, without=["gamma", "norm."]))
    assert count == 1
    assert not different(plain, made)


def derived(change):
    def make():
        module = Net()
        change(module)
        return filled(module, strict=False)

    return make


DERIVED = {
    "a buffer that is not stored": lambda m: m.register_buffer("twice", 2 * m.head.weight.detach(), persistent=False),
    "a view": lambda m: m.register_buffer("row", m.head.weight.detach().clone()[0], persistent=False),
    "a tensor in a list": lambda m: m.table.append(torch.cat([m.head.weight.detach().flatten(), torch.ones(1)])),
    "in a closure": lambda m: setattr(m, "said", (lambda kept: lambda: kept)(m.conv.weight.detach() + 1)),
    "drawn into a part": lambda m: m.table.append(nn.init.normal_(torch.zeros(4)[:2])),
    "written into another": lambda m: m.table.append(torch.zeros(2, 4).copy_(m.head.weight.detach())),
    "by out=": lambda m: m.table.append(torch.add(m.head.weight.detach(), 1, out=torch.zeros(2, 4))),
    "by index": lambda m: m.table[0].index_copy_(0, torch.tensor([1]), m.head.weight.detach()[:1, :2]),
    "several at once": lambda m: torch._foreach_add_(m.table, [torch.rand(5, 2)]),
    "random order": lambda m: m.table.append(torch.randperm(50)),
    "dropout": lambda m: m.table.append(torch.dropout(torch.ones(50), 0.5, True)),
    "a generator of its own": lambda m: m.table.append(torch.rand(5, generator=torch.Generator().manual_seed(2))),
    "a number": lambda m: setattr(m, "scale", nn.Parameter(torch.tensor(m.head.weight.mean().item()))),
    "a list of numbers": lambda m: m.table.append(torch.tensor(m.head.weight.tolist())),
    "an array": lambda m: m.table.append(torch.tensor(m.head.weight.detach().numpy())),
    "memory lent": lambda m: m.table.append(torch.tensor(np.from_dlpack(m.head.weight.detach()).copy())),
    "a decision": lambda m: m.table.append(torch.ones(1 if m.head.weight[0, 0] > 0 else 2)),
    "a shape": lambda m: m.table.append(torch.ones(len((m.conv.weight > 7.5).nonzero()))),
    "an order": lambda m: m.table.append(torch.arange(8)[m.head.weight.detach().flatten().argsort()]),
}


@pytest.mark.parametrize("change", DERIVED.values(), ids=DERIVED)
def test_what_was_made_of_random_numbers_is_as_usual(change):
    plain, made, count = both(derived(change))
    assert count == 2
    assert not different(plain, made)


def test_what_is_loaded_in_part_is_as_usual():
    def make():
        module = filled(Net(), strict=False, without=["head.weight"])
        with torch.no_grad():
            module.head.weight[:1].copy_(torch.ones(1, 4))
        return module

    plain, made, count = both(make)
    assert count == 2
    assert not different(plain, made)


def test_what_is_made_and_replaced_does_not_count():
    def make():
        module = Net()
        module.me = [module]  # a circle, which only the garbage collector finds
        module = Net()
        module.head = nn.Identity()
        return filled(module)

    plain, made, count = both(make)
    assert count == 1
    assert not different(plain, made)


def test_weights_taken_over_instead_of_copied():
    donor = Net().state_dict()

    def make():
        module = Net()
        module.load_state_dict(donor, assign=True)
        return module

    plain, made, count = both(make)
    assert count == 1
    assert not different(plain, made)


def test_an_error_is_that_of_the_usual_way():
    def make():
        raise ValueError("no such file")

    calls = Calls(make)
    with pytest.raises(ValueError, match="no such file"):
        skip_init.build_without_init(calls)


def test_the_generator_goes_on_as_if_nothing_had_been_drawn():
    before = torch.random.get_rng_state()
    for make in (Net, lambda: filled(Net())):
        skip_init.build_without_init(make)
        assert torch.equal(torch.random.get_rng_state(), before)


class TestSources:
    """Each source builds its networks so, once, and they are the usual ones."""

    @pytest.fixture(autouse=True)
    def attempts(self, monkeypatch):
        """Whether each network could be built undrawn."""
        said, real = [], skip_init.try_without_init

        def watched(make):
            made = real(make)
            said.append(made is not None)
            return made

        monkeypatch.setattr(skip_init, "try_without_init", watched)
        return said

    def plainly(self, monkeypatch, *args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(skip_init, "build_without_init", lambda make: make())
            return load.load(*args, **options).module

    def check(self, monkeypatch, attempts, *args, **options):
        made = load.load(*args, **options).module
        assert attempts == [True]
        assert not different(made, self.plainly(monkeypatch, *args, **options))

    def test_bundled(self, monkeypatch, attempts):
        self.check(monkeypatch, attempts, "bundled:efficientnet-lite0")

    @pytest.mark.parametrize("model", ["timm:test_vit_relpos", "timm:test_resnet", "torchvision:squeezenet1_1"])
    def test_a_file(self, monkeypatch, attempts, tmp_path, model):
        torch.save(load.load(model, weights="random", seed=7).module.state_dict(), tmp_path / "it.pth")
        self.check(monkeypatch, attempts, model, weights=str(tmp_path / "it.pth"))

    def test_a_folder_of_timm(self, monkeypatch, attempts, tmp_path):
        timm.models.save_for_hf(timm.create_model("test_vit"), tmp_path)
        self.check(monkeypatch, attempts, f"local-dir:{tmp_path}")

    def test_a_folder_of_open_clip(self, monkeypatch, attempts, tmp_path):
        tiny_clip(tmp_path)
        self.check(monkeypatch, attempts, f"open_clip:local-dir:{tmp_path}", text=("a cat", "a dog"))

    def test_another_number_of_classes(self, monkeypatch, attempts, tmp_path):
        torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "it.pth")
        self.check(monkeypatch, attempts, "timm:test_vit", weights=str(tmp_path / "it.pth"))

    def test_random_weights_are_those_of_the_seed(self, attempts):
        made = load.load("timm:test_vit", weights="random", seed=3).module
        torch.manual_seed(3)
        usual = timm.create_model("test_vit")
        assert torch.equal(made.patch_embed.proj.weight, usual.patch_embed.proj.weight)
        assert attempts == []


# The largest of the zoo, of which two blocks say as much.
DEEP = ("deepseek_vit_412m", "gemma4_vit_167m", "qwen3_vit_88m", "beit_base_patch16_224")


def makers():
    """How the libraries make a model of each family, by the model's name."""
    for model in dict.fromkeys([*timm.list_models("test_*"), *zoo.TIMM.values()]):
        fewer = {"depth": 2} if model in DEEP else {}
        yield f"timm:{model}", lambda model=model, fewer=fewer: timm.create_model(model, **fewer)
    for home in (torchvision.models, torchvision.models.segmentation, torchvision.models.detection):
        parts = {} if home is torchvision.models else {"weights_backbone": None}
        for model in torchvision.models.list_models(module=home):
            options = {"init_weights": True} if model in ("googlenet", "inception_v3") else parts
            if f"torchvision:{model}" not in zoo.siblings():
                yield (
                    f"torchvision:{model}",
                    lambda model=model, options=options: torchvision.models.get_model(model, weights=None, **options),
                )
    for model in zoo.OPEN_CLIP.values():
        yield f"open_clip:{model}", lambda model=model: open_clip.create_model(model, load_weights=False)


@pytest.mark.parametrize(
    ("name", "create"),
    [pytest.param(*one, id=one[0], marks=[] if "test_" in one[0] else pytest.mark.slow) for one in makers()],
)
@pytest.mark.filterwarnings("ignore")
def test_every_family(name, create):
    torch.manual_seed(5)
    usual = create()

    def make():
        module = create()
        module.load_state_dict(usual.state_dict())
        return module

    torch.manual_seed(6)
    calls = Calls(make)
    assert not different(skip_init.build_without_init(calls), usual)
    assert calls.count == 1


def test_what_other_threads_build_meanwhile_is_drawn() -> None:
    drawn = torch.empty(4000)

    def make() -> nn.Module:
        other = threading.Thread(target=lambda: nn.init.trunc_normal_(drawn, std=0.02))
        other.start()
        other.join()
        return nn.Linear(2, 2)

    skip_init.build_without_init(make)
    assert 0.015 < float(drawn.std()) < 0.025
