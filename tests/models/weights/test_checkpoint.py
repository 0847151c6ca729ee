"""Files of weights: read without running code, fitted whole or refused with reasons."""

import argparse
import collections
import datetime
import os
import pathlib
import textwrap
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from camcli.base.errors import RequestError
from camcli.models.weights import checkpoint, fit
from camcli.models.weights.checkpoint import Checkpoint


class Net(nn.Module):
    """A body with statistics, and a head."""

    def __init__(self, classes: int = 5, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))
        self.head = nn.Linear(width, classes)


def build(classes: int | None = None) -> Net:
    return Net(classes or 5)


def states_equal(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def net() -> Net:
    return Net().eval()


class Metric:
    """Something of the user's own, beside the weights."""


def converted(hint, tmp_path, monkeypatch):
    """What the Python in a hint makes."""
    monkeypatch.chdir(tmp_path)
    program = textwrap.dedent("\n".join(line for line in hint.splitlines() if line.startswith("  ")))
    exec(program, {})
    return checkpoint.read("weights.pth")


def saved(tmp_path, content, name="weights.pth", **options):
    torch.save(content, tmp_path / name, **options)
    return tmp_path / name


class TestRead:
    def test_a_state_dict(self, tmp_path, net):
        read = checkpoint.read(saved(tmp_path, net.state_dict()))
        assert read.notes == ()
        assert list(read.state) == list(net.state_dict())

    def test_the_format_before_pytorch_1_6(self, tmp_path, net):
        path = saved(tmp_path, net.state_dict(), _use_new_zipfile_serialization=False)
        assert list(checkpoint.read(path).state) == list(net.state_dict())

    @pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
    def test_safetensors_by_its_content_not_its_name(self, tmp_path, net, name):
        safetensors.torch.save_file(net.state_dict(), tmp_path / name)
        assert checkpoint.read(tmp_path / name).state.keys() == net.state_dict().keys()

    @pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict", "net"])
    def test_wrappers(self, tmp_path, net, name):
        content = {"epoch": 3, name: net.state_dict(), "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
        read = checkpoint.read(saved(tmp_path, content))
        assert read.state.keys() == net.state_dict().keys()
        assert read.notes == ()

    def test_a_wrapper_in_a_wrapper(self, tmp_path, net):
        content = {"model": {"epoch": 3, "state_dict": net.state_dict()}}
        assert checkpoint.read(saved(tmp_path, content)).state.keys() == net.state_dict().keys()

    @pytest.mark.parametrize("name", ["state_dict_ema", "model_ema", "ema"])
    def test_averaged_weights_are_taken_and_said_to_be(self, tmp_path, net, name):
        averaged = {key: value + 1 for key, value in net.state_dict().items()}
        read = checkpoint.read(saved(tmp_path, {"state_dict": net.state_dict(), name: averaged}))
        assert torch.equal(read.state["head.bias"], averaged["head.bias"])
        assert read.notes == (f"averaged (EMA) weights {name!r} were loaded",)

    def test_averaged_weights_that_are_none(self, tmp_path, net):
        read = checkpoint.read(saved(tmp_path, {"state_dict": net.state_dict(), "model_ema": None}))
        assert read.notes == ()

    def test_the_arguments_of_a_training_script(self, tmp_path, net):
        content = {"state_dict": net.state_dict(), "args": argparse.Namespace(lr=0.1)}
        assert checkpoint.read(saved(tmp_path, content)).state

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickled_model_is_refused_and_its_code_named(self, tmp_path, net, zipped):
        path = saved(tmp_path, net, _use_new_zipfile_serialization=zipped)
        with pytest.raises(RequestError, match=r"refused.*\.Net") as caught:
            checkpoint.read(path)
        assert "weights_only=False" in caught.value.hint

    def test_code_in_a_pickle_does_not_run(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "owned"),)

        path = saved(tmp_path, {"state_dict": {"a": torch.ones(1)}, "args": Evil()})
        with pytest.raises(RequestError, match=r"refused.*mkdir"):
            checkpoint.read(path)
        assert not (tmp_path / "owned").exists()

    def test_what_lies_beside_the_weights_does_not_hinder(self, tmp_path):
        """Paths, numbers of NumPy and the like are no code, and nothing is made of them."""
        beside = {
            "best": np.float64(1),
            "count": np.int64(3),
            "curve": np.arange(3),
            "out": pathlib.Path("runs") / "one",
            "when": datetime.datetime(2026, 1, 2),
            "table": collections.defaultdict(list, a=[1]),
            "random": np.random.get_state(),
            "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a")),
        }
        for zipped in (True, False):
            path = saved(
                tmp_path, {"state_dict": {"a": torch.arange(3.0)}, **beside}, _use_new_zipfile_serialization=zipped
            )
            read = checkpoint.read(path)
            assert list(read.state) == ["a"]
            assert torch.equal(read.state["a"], torch.arange(3.0))

    def test_beside_the_weights_no_names_are_called(self, tmp_path, monkeypatch):
        """Not even those of harmless kinds: a path of another system can be read, and a module need not be there."""
        path = saved(tmp_path, {"state_dict": {"a": torch.ones(1)}, "out": pathlib.PurePosixPath("a")})
        other = tmp_path / "other.pth"
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name.endswith("data.pkl"):
                    content = content.replace(b"cpathlib\nPurePosixPath", b"comegaconf.dictconfig\nDictConfig")
                    assert b"omegaconf" in content
                new.writestr(name, content)
        assert list(checkpoint.read(other).state) == ["a"]

    def test_arrays_of_numpy_as_weights_are_said_and_can_be_converted(self, tmp_path, monkeypatch):
        path = saved(tmp_path, {"state_dict": {"a": np.arange(3.0)}})
        with pytest.raises(RequestError, match="NumPy arrays") as caught:
            checkpoint.read(path)
        assert torch.equal(converted(caught.value.hint, tmp_path, monkeypatch).state["a"], torch.arange(3.0).double())

    def test_the_way_out_of_a_refusal_works(self, tmp_path, net, monkeypatch):
        for content in (
            net,
            {"epoch": 3, "model": net, "best": Metric()},
            {"state_dict": net.state_dict(), "x": Metric()},
        ):
            path = saved(tmp_path, content)
            with pytest.raises(RequestError) as caught:
                checkpoint.read(path)
            assert "Only if you trust its author" in caught.value.hint
            module, _ = fit.load_weights(build, converted(caught.value.hint, tmp_path, monkeypatch), "Net")
            assert states_equal(module, net)

    @pytest.mark.parametrize("name", ["model_state", "teacher", "encoder", "ema", "generator"])
    def test_weights_under_any_name(self, tmp_path, net, name):
        content = {"epoch": torch.tensor(3), name: net.state_dict(), "optimizer": {"state": {0: {"m": torch.ones(9)}}}}
        module, _ = fit.load_weights(build, checkpoint.read(saved(tmp_path, content)), "Net")
        assert states_equal(module, net)

    def test_weights_deep_within(self, tmp_path, net):
        content = {"run": {"models": {"module": {f"_orig_mod.{k}": v for k, v in net.state_dict().items()}}}}
        module, notes = fit.load_weights(build, checkpoint.read(saved(tmp_path, content)), "Net")
        assert states_equal(module, net)
        assert notes == ()

    def test_a_student_and_its_teacher_are_no_guess_and_the_way_out_works(self, tmp_path, net, monkeypatch):
        other = {name: value + 1 for name, value in net.state_dict().items()}
        path = saved(tmp_path, {"student": other, "teacher": net.state_dict()})
        with pytest.raises(RequestError, match="2 times") as caught:
            fit.load_weights(build, checkpoint.read(path), "Net")
        module, _ = fit.load_weights(build, converted(caught.value.hint, tmp_path, monkeypatch), "Net")
        assert states_equal(module, net)

    def test_a_scripted_model_is_named_and_the_way_out_works(self, tmp_path, monkeypatch):
        class Plain(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(2, 3)

            def forward(self, x):
                return self.head(x)

        net = Plain()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(net, torch.ones(1, 2)), tmp_path / "script.pt")
            with pytest.raises(RequestError, match="TorchScript archive") as caught:
                checkpoint.read(tmp_path / "script.pt")
            lines = caught.value.hint.splitlines()
            program = "\n".join(line.strip() for line in lines[1:3])
            monkeypatch.chdir(tmp_path)
            exec(program, {})
        assert torch.equal(checkpoint.read("weights.pth").state["head.weight"], net.head.weight)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is empty"),
            (b"hello, this is text", "is text, which begins 'hello"),
            (b"PK\x03\x04 but no archive", "damaged"),
            (b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}", "damaged"),
        ],
        ids=["empty", "text", "zip", "safetensors"],
    )
    def test_files_of_another_kind(self, tmp_path, content, said):
        (tmp_path / "weights.pth").write_bytes(content)
        with pytest.raises(RequestError, match=said):
            checkpoint.read(tmp_path / "weights.pth")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_truncated_file(self, tmp_path, net, zipped):
        path = saved(tmp_path, net.state_dict(), _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(RequestError, match="damaged"):
            checkpoint.read(path)

    def test_a_truncated_safetensors_file(self, tmp_path, net):
        path = tmp_path / "weights.safetensors"
        safetensors.torch.save_file(net.state_dict(), path)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(RequestError, match="damaged"):
            checkpoint.read(path)

    def test_missing_files_and_folders(self, tmp_path):
        with pytest.raises(RequestError, match="No such file"):
            checkpoint.read(tmp_path / "none.pth")
        with pytest.raises(RequestError, match="directory"):
            checkpoint.read(tmp_path)

    @pytest.mark.parametrize("content", [torch.ones(3), [torch.ones(3)], {"epoch": 3}, {}])
    def test_what_is_no_state_dict(self, tmp_path, content):
        with pytest.raises(RequestError, match=r"not a state dict|contains no state dict"):
            checkpoint.read(saved(tmp_path, content))


def held(state, path="weights.pth"):
    from pathlib import Path

    return Checkpoint(Path(path), dict(state))


class TestFit:
    def test_what_fits_is_loaded_without_a_word(self, net):
        module, notes = fit.load_weights(build, held(net.state_dict()), "Net")
        assert states_equal(module, net)
        assert notes == ()

    @pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "_orig_mod.module.", "a.b.c."])
    def test_prefixes_are_taken_off(self, net, prefix):
        state = {prefix + name: value for name, value in net.state_dict().items()}
        module, notes = fit.load_weights(build, held(state), "Net")
        assert states_equal(module, net)
        assert notes == ()

    def test_a_prefix_that_belongs_to_the_model_stays(self):
        def wrapped(classes=None):
            return nn.ModuleDict({"model": build(classes)})

        made = wrapped()
        module, _ = fit.load_weights(wrapped, held(made.state_dict()), "Net")
        assert states_equal(module, made)

    def test_what_stands_outside_the_prefix_is_named(self, net):
        state = {f"model.{name}": value for name, value in net.state_dict().items()}
        _, notes = fit.load_weights(build, held({**state, "loss.weight": torch.ones(2)}), "Net")
        assert notes == ("only the weights under 'model.' in the file were loaded, not loss.weight",)

    def test_an_averaged_model_beside_the_plain_one(self, net):
        plain = {f"model.{name}": value for name, value in net.state_dict().items()}
        averaged = {f"ema.module.{name}": value * 2 for name, value in net.state_dict().items()}
        module, notes = fit.load_weights(build, held(plain | averaged), "Net")
        assert torch.equal(module.head.bias, net.head.bias * 2)
        assert "under 'ema.module.'" in notes[0]

    def test_two_models_in_one_file_are_no_guess(self, net):
        state = {f"{who}.{name}": value for who in ("student", "teacher") for name, value in net.state_dict().items()}
        with pytest.raises(RequestError, match=r"2 times: under 'student\.', 'teacher\.'"):
            fit.load_weights(build, held(state), "Net")

    @pytest.mark.parametrize("classes", [1, 2, 37])
    def test_the_head_takes_the_files_number_of_classes(self, classes):
        made = Net(classes)
        module, notes = fit.load_weights(build, held(made.state_dict()), "Net")
        assert states_equal(module, made)
        assert notes == ("the head was built with the number of classes in the weights file",)

    def test_a_model_without_a_head_gets_the_files(self):
        def headless(classes=None):
            return Net(classes) if classes else nn.ModuleDict({"body": build().body})

        made = Net(7)
        module, notes = fit.load_weights(headless, held(made.state_dict()), "Net")
        assert states_equal(module, made)
        assert notes == ("the head was built with the number of classes in the weights file",)

    def test_what_is_unexpected_but_no_head_is_refused(self):
        state = Net().state_dict() | {"extra": torch.ones(7), "more": torch.ones(8)}
        with pytest.raises(RequestError, match="2 unexpected"):
            fit.load_weights(build, held(state), "Net")

    def test_two_heads(self):
        def two(classes=None):
            return nn.ModuleDict({"one": build(classes), "two": build(classes)})

        made = two(7)
        assert states_equal(fit.load_weights(two, held(made.state_dict()), "Net")[0], made)

    def test_another_width_is_no_head(self):
        with pytest.raises(RequestError, match="7 of another shape") as caught:
            fit.load_weights(build, held(Net(width=8).state_dict()), "Net")
        assert "body.0.weight (8, 3, 3, 3) in the file, (4, 3, 3, 3) in the model" in caught.value.hint

    def test_a_model_that_cannot_be_rebuilt_is_refused(self):
        with pytest.raises(RequestError, match="2 of another shape"):
            fit.load_weights(lambda _classes: Net(5), held(Net(7).state_dict()), "Net")

    def test_missing_and_unexpected_names_are_listed_and_counted(self, net):
        state = net.state_dict()
        del state["head.bias"], state["head.weight"]
        state |= {f"extra.{index}": torch.ones(1) for index in range(11)}
        with pytest.raises(RequestError, match="do not fit Net: 2 missing, 11 unexpected") as caught:
            fit.load_weights(build, held(state), "Net")
        assert "missing in the file: head.weight, head.bias" in caught.value.hint
        assert "extra.7 and 3 more" in caught.value.hint

    def test_counters_that_old_files_lack_are_not_missed(self, net):
        state = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
        assert states_equal(fit.load_weights(build, held(state), "Net")[0], net)

    def test_half_precision_fits(self, net):
        state = {name: value.half() if value.is_floating_point() else value for name, value in net.state_dict().items()}
        module, _ = fit.load_weights(build, held(state), "Net")
        assert module.head.weight.dtype == torch.float32

    def test_another_layout_is_converted_and_said_to_be(self, net):
        def convert(state, module):
            return collections.OrderedDict((name.replace("trunk.", "body."), value) for name, value in state.items())

        old = {name.replace("body.", "trunk."): value for name, value in reversed(net.state_dict().items())}
        module, notes = fit.load_weights(build, held(old), "Net", convert)
        assert states_equal(module, net)
        assert "converted" in notes[0]

    @pytest.mark.parametrize("convert", [lambda state, module: state, lambda state, module: state["nothing"]])
    def test_a_converter_that_does_not_help_changes_no_message(self, net, convert):
        old = {name.replace("body.", "trunk."): value for name, value in reversed(net.state_dict().items())}
        with pytest.raises(RequestError, match="6 missing, 7 unexpected"):
            fit.load_weights(build, held(old), "Net", convert)

    def test_what_was_chosen_when_reading_is_kept(self, net, tmp_path):
        read = checkpoint.read(saved(tmp_path, {"state_dict_ema": net.state_dict()}))
        assert fit.load_weights(build, read, "Net")[1] == ("averaged (EMA) weights 'state_dict_ema' were loaded",)
