"""Model strings resolved to a source, what is out of reach, listings, and silence while a model loads."""

import logging
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from huggingface_hub import constants
from model_sources import BUNDLED, in_hub_cache, upright
from shared import ROOT

from camcli import models
from camcli.base.errors import NothingFoundError, RequestError
from camcli.models.listing import find_models, resolve
from camcli.models.load import load
from camcli.models.sources import torchvision as torchvision_source

pytestmark = pytest.mark.usefixtures("empty_caches")


class TestResolve:
    @pytest.mark.parametrize(
        ("model", "place", "name"),
        [
            ("resnet50", "timm", "resnet50"),
            ("resnet50.a1_in1k", "timm", "resnet50.a1_in1k"),
            ("resnet50/IMAGENET1K_V2", "torchvision", "resnet50/IMAGENET1K_V2"),
            ("squeezenet1_1", "torchvision", "squeezenet1_1"),
            ("ViT-B-32/laion2b_s34b_b79k", "open_clip", "ViT-B-32/laion2b_s34b_b79k"),
            ("efficientnet-lite0", "bundled", "efficientnet-lite0"),
            ("timm:resnet50", "timm", "resnet50"),
            ("torchvision:resnet50", "torchvision", "resnet50"),
            ("open_clip:hf-hub:a/b", "open_clip", "hf-hub:a/b"),
            ("hf-hub:timm/resnet50.a1_in1k", "timm", "hf-hub:timm/resnet50.a1_in1k"),
            ("hf_hub:timm/resnet50.a1_in1k", "timm", "hf_hub:timm/resnet50.a1_in1k"),
            ("local-dir:/some/folder", "timm", "local-dir:/some/folder"),
            ("some/net.py:make", "local", "some/net.py:make"),
            (r"C:\some\net.py:make", "local", r"C:\some\net.py:make"),
        ],
    )
    def test_where_a_model_string_leads(self, model, place, name):
        assert resolve(model) == (place, name)

    @pytest.mark.parametrize(
        ("model", "said", "hinted"),
        [
            ("resnt50", "no model 'resnt50'", "timm:resnet50 "),
            ("vit_b16", "no model 'vit_b16'", "torchvision:vit_b_16"),
            ("ViT-B32", "no model 'ViT-B32'", "open_clip:ViT-B-32"),
            ("timmm:resnet50", "'timmm', which is neither a model source", "did you mean 'timm'"),
            ("net.py", "does not name the function", "net.py:function"),
        ],
    )
    def test_what_leads_nowhere_names_the_nearest(self, model, said, hinted):
        with pytest.raises(RequestError, match=said) as caught:
            resolve(model)
        assert hinted in caught.value.hint

    @pytest.mark.parametrize(
        ("model", "said", "hinted"),
        [
            ("timm:resnt50", "timm has no model", "'resnet50"),
            ("timm:resnet50.a1_in2k", "no weights 'a1_in2k' for resnet50", "resnet50.tv_in1k"),
            ("torchvision:resnt50", "torchvision has no model", "'resnet50'"),
            ("torchvision:resnet50/IMAGENET1K_V3", "no weights 'IMAGENET1K_V3'", "IMAGENET1K_V1, IMAGENET1K_V2"),
            ("torchvision:vgg16/IMAGENET1K_FEATURES", "with classes", "IMAGENET1K_V1"),
            ("torchvision:raft_small", "does not return class scores", ""),
            ("torchvision:fasterrcnn_resnet50_fpm", "torchvision has no model", "'fasterrcnn_resnet50_fpn'"),
            ("open_clip:ViT-B-3", "open_clip has no model", "'ViT-B-32'"),
            ("open_clip:ViT-B-32/openay", "no weights 'openay'", "did you mean 'openai'"),
            ("open_clip:ViT-B-32", "does not name its weights", "laion2b_s34b_b79k"),
            ("open_clip:ViT-B-16-SigLIP/webli", "transformers", "pip install transformers"),
            ("local-dir:/does/not/exist", "config.json", "save_for_hf"),
            ("open_clip:local-dir:/does/not/exist", "open_clip_config.json", "leave open_clip: out"),
            ("vit_small_patch14_dinov2.lvd142m", "not in the cache", "--weights"),
        ],
    )
    def test_each_source_says_what_it_has(self, model, said, hinted):
        text = ("a cat", "a dog") if "ViT-" in model or model.startswith("open_clip") else ()
        with pytest.raises(RequestError, match=said) as caught:
            load(model, text=text)
        assert hinted in caught.value.hint


class TestOutOfReach:
    @pytest.mark.parametrize(
        ("model", "named"),
        [
            ("resnet50", "the weights of timm:resnet50.a1_in1k"),
            ("timm:vit_base_patch16_224.augreg_in21k", "the weights of timm:vit_base_patch16_224.augreg_in21k"),
            ("hf-hub:someone/model@v2", "the files of timm:hf-hub:someone/model@v2"),
            ("ViT-B-32/laion2b_s34b_b79k", "the weights of open_clip:ViT-B-32/laion2b_s34b_b79k"),
            ("open_clip:hf-hub:someone/model", "the files of open_clip:hf-hub:someone/model"),
        ],
    )
    def test_an_absent_hub_is_named_with_the_ways_out(self, model, named):
        with pytest.raises(RequestError, match=r"not in the cache.*hub\.invalid") as caught:
            load(model, text=("a cat",) if "ip:" in model or "ViT" in model else ())
        assert caught.value.message.startswith(named)
        for way in ("--weights FILE", "HF_HOME", "bundled", "--weights random"):
            assert way in caught.value.hint

    def test_a_deaf_hub_is_given_up_on_in_time(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
            start = time.monotonic()
            with pytest.raises(RequestError, match="not in the cache"):
                load("resnet50")
            assert time.monotonic() - start < 5

    def test_so_is_a_silent_download_host(self, monkeypatch):
        monkeypatch.setattr(torchvision_source.hub.UrlFile, "host", "https://download.invalid")
        start = time.monotonic()
        with pytest.raises(
            RequestError, match=r"torchvision:squeezenet1_1/IMAGENET1K_V1 .*download\.invalid"
        ) as caught:
            load("squeezenet1_1")
        assert time.monotonic() - start < 5
        assert "squeezenet1_1-b8a52dc0.pth" in caught.value.hint

    def test_a_model_that_nobody_has_weights_for(self):
        with pytest.raises(RequestError, match="nobody has published weights for timm:botnet50ts_256") as caught:
            load("timm:botnet50ts_256")
        assert "--weights random" in caught.value.hint


class TestListing:
    def test_every_source_is_listed(self):
        listed = [name for name, _ in find_models()]
        assert listed[0] == BUNDLED
        for name in ("timm:resnet50.a1_in1k", "torchvision:resnet50/IMAGENET1K_V2", "open_clip:ViT-B-32/openai"):
            assert name in listed
        assert len(listed) == len(set(listed))

    def test_globs_and_parts(self):
        assert {name.partition(":")[0] for name, _ in find_models("resnet50*")} == {"timm", "torchvision"}
        assert all("LAION" in name.upper() for name, _ in find_models("laion"))
        assert [name for name, _ in find_models("bundled:*")] == [BUNDLED]
        with pytest.raises(NothingFoundError, match="no model like 'resnet50000'") as caught:
            find_models("resnet50000")
        assert "resnet50" in caught.value.hint

    def test_only_those_at_hand(self, tmp_path):
        assert find_models(only_cached=True) == [(BUNDLED, True)]
        (in_hub_cache(tmp_path, "timm/test_resnet.r160_in1k") / "model.safetensors").write_bytes(b"")
        assert ("timm:test_resnet.r160_in1k", True) in find_models("test_resnet", only_cached=True)


class TestQuiet:
    def test_what_libraries_warn_of_becomes_notes(self, monkeypatch, tmp_path, capfd):
        file = tmp_path / "net.py"
        file.write_text(
            "import logging, warnings\n"
            "def make():\n"
            "    logging.getLogger('some.library').warning('weights are %s', 'odd')\n"
            "    warnings.warn('a name is old')\n"
            "    import timm\n"
            "    return timm.create_model('test_resnet')\n"
        )
        before = list(logging.getLogger().handlers)
        network = load(f"{file}:make")
        assert {"weights are odd", "a name is old"} <= set(network.notes)
        assert logging.getLogger().handlers == before
        assert capfd.readouterr().out == ""


def imported_by(program: str) -> set[str]:
    """The libraries that a program has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
    )
    heavy = {"torch", "timm", "torchvision", "open_clip", "cv2", "transformers"}
    return heavy & set(done.stdout.split())


def test_the_table_of_sources_imports_no_library():
    assert imported_by("from camcli.models import SOURCES; SOURCES.names()") == set()


def test_open_clip_is_not_imported_for_timm():
    assert "open_clip" not in imported_by("from camcli.models.load import load; load('test_resnet', weights='random')")


def test_the_samples_are_there():
    assert np.asarray(upright("chelsea.png")).shape == (300, 451, 3)
    libraries = ["bundled", "timm", "torchvision", "open_clip", "hf", "ultralytics", "libreyolo"]
    assert models.SOURCES.names() == [*libraries, "onnx", "pt2", "hub", "local"]


def test_with_own_weights_it_is_said_which_of_two_libraries_is_meant(tmp_path):
    timm, torch = (pytest.importorskip(name) for name in ("timm", "torch"))
    mine, other = tmp_path / "mine.pth", tmp_path / "other.pth"
    torch.save(timm.create_model("resnet18", num_classes=3).state_dict(), mine)
    torch.save({"a.weight": torch.ones(3, 3)}, other)
    said = "resnet18 is timm's, with timm's preprocessing"
    assert (
        sum(said in note and "-m torchvision:resnet18" in note for note in load("resnet18", weights=str(mine)).notes)
        == 1
    )
    assert not any(said in note for note in load("timm:resnet18", weights=str(mine)).notes)
    with pytest.raises(RequestError, match="do not fit") as caught:
        load("resnet18", weights=str(other))
    assert "torchvision has another resnet18: -m torchvision:resnet18" in caught.value.hint
