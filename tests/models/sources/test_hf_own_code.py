"""Models of transformers that bring Python code along: run where the user says so, and only then."""

import importlib
import json
import shutil
import sys

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is an extra (hf)")

from hf_models import SIDE  # noqa: E402
from model_sources import in_hub_cache  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import camcli  # noqa: E402
from camcli.base.errors import RequestError  # noqa: E402
from camcli.cli import app  # noqa: E402
from camcli.models.load import load  # noqa: E402
from camcli.models.sources.hf_files import list_python_files  # noqa: E402
from camcli.runs.job import job_file  # noqa: E402

pytestmark = pytest.mark.usefixtures("empty_caches")

CONFIG = """
from transformers import PretrainedConfig


class OwnConfig(PretrainedConfig):
    model_type = "camcli_own"
    width = 4
"""
MODEL = """
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from .own_config import OwnConfig


class OwnNet(PreTrainedModel):
    config_class = OwnConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.conv = torch.nn.Conv2d(3, config.width, 4, 4)
        self.head = torch.nn.Linear(config.width, config.num_labels)
        self.post_init()

    def forward(self, pixel_values, return_dict=None):
        return ImageClassifierOutput(logits=self.head(self.conv(pixel_values).relu().mean((2, 3))))
"""
WEIGHTS = {
    "conv.weight": torch.arange(192.0).reshape(4, 3, 4, 4) / 192 - 0.5,
    "conv.bias": torch.zeros(4),
    "head.weight": torch.arange(12.0).reshape(3, 4) / 12 - 0.5,
    "head.bias": torch.zeros(3),
}


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory):
    """Where transformers imports code from: one folder, since it is a package, which Python imports once."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("modules")
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(place))
        patch.setattr(sys, "path", [*sys.path])
        yield place


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "own"
    made.mkdir()
    (made / "own_config.py").write_text(CONFIG)
    (made / "own_model.py").write_text(MODEL)
    settings = {
        "model_type": "camcli_own",
        "architectures": ["OwnNet"],
        "auto_map": {"AutoConfig": "own_config.OwnConfig", "AutoModelForImageClassification": "own_model.OwnNet"},
        "id2label": {"0": "cat", "1": "dog", "2": "cup"},
    }
    (made / "config.json").write_text(json.dumps(settings))
    transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(made)
    from safetensors.torch import save_file

    save_file(WEIGHTS, made / "model.safetensors", {"format": "pt"})
    return made


def change(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


def test_its_class_and_weights_are_used(folder):
    network = load(f"hf:{folder}", trust_code=True)
    assert network.labels.names == ("cat", "dog", "cup")
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    middle = torch.nn.functional.conv2d(images, WEIGHTS["conv.weight"], stride=4).relu().mean((2, 3))
    assert torch.allclose(network.module(images).logits, middle @ WEIGHTS["head.weight"].T, atol=1e-5)
    assert any(f"runs Python code that comes with the model: OwnNet, in {folder}" in note for note in network.notes)
    assert camcli.Explainer(network, layers=["conv"], method="hirescam")(images, 2)[0][0].map.shape == (SIDE // 4,) * 2


def test_without_the_flag_it_is_refused_and_where_to_read_is_said(folder):
    with pytest.raises(RequestError, match="runs Python code of its own") as caught:
        load(f"hf:{folder}")
    assert "--trust-code" in str(caught.value.hint)
    assert str(folder) in str(caught.value.hint)


def test_the_hubs_cache_has_the_code_and_what_it_imports(folder, tmp_path):
    shutil.copytree(folder, in_hub_cache(tmp_path, "owner/own"), dirs_exist_ok=True)
    assert load("hf:owner/own", trust_code=True).labels.names[0] == "cat"
    assert [one.name for one in list_python_files("owner/own")] == ["own_config.py", "own_model.py"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"auto_map": {"AutoModelForImageClassification": "other/repo--own_model.OwnNet"}}, "another repository"),
        ({"auto_map": {"AutoModelForCausalLM": "own_model.OwnNet"}}, "none of these is a classifier"),
        ({"auto_map": {"AutoModelForImageClassification": "absent.OwnNet"}}, r"\(absent.OwnNet\) cannot be imported"),
    ],
)
def test_what_cannot_be_used_is_refused(folder, settings, reason):
    change(folder, **settings)
    with pytest.raises(RequestError, match=reason):
        load(f"hf:{folder}", trust_code=True)


def test_code_that_fails_says_why(folder):
    (folder / "own_model.py").write_text("import a_package_that_nobody_has\n" + MODEL)
    with pytest.raises(RequestError, match="a_package_that_nobody_has"):
        load(f"hf:{folder}", trust_code=True)


def test_other_models_have_nothing_to_trust():
    with pytest.raises(RequestError, match="brings no code of its own along"):
        load("timm:test_resnet", weights="random", trust_code=True)


def test_a_job_file_needs_trust_of_its_own(folder, tmp_path, sample_images):
    job = tmp_path / "job.toml"
    job.write_text(f'model = "hf:{folder}"\ntrust_code = true\nlayer = "conv"\nlimit = 1\n')
    assert job_file.find_code({"model": f"hf:{folder}", "trust_code": True}) == {"trust_code": "true"}
    words = ["explain", "--config", str(job), "--out", str(tmp_path / "out"), str(sample_images), "--device", "cpu"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "trust_code runs Python code that comes with the model" in " ".join(refused.output.split())
    assert CliRunner().invoke(app, [*words, "--trust-config"]).exit_code == 0
    assert "1 done before" in CliRunner().invoke(app, [*words, "--trust-config"]).output
    # In its other file, which a process imports once only.
    (folder / "own_config.py").write_text(CONFIG + "# changed\n")
    importlib.invalidate_caches()
    again = CliRunner().invoke(app, [*words, "--trust-config"]).output
    assert "the code of own_config.py changed" in again
