"""Names of models read from the libraries' files, without importing them."""

import subprocess
import sys

import open_clip
import pytest
import timm
import torchvision

from camcli.base import cache
from camcli.models.check_name import check_name
from camcli.models.installed_names import read_installed_names
from camcli.models.listing import import_source

TYPO = """
import sys
from camcli.base.errors import RequestError
from camcli.models.check_name import check_name
for name in ("resnet50", "timm:resnet50.a1_in1k", "torchvision:raft_small", "open_clip:ViT-B-32/openai", "a.py:make"):
    check_name(name, by_listing=True)
for name in ("resnt50", "timm:resnt50", "torchvision:resnt50"):
    try:
        check_name(name, by_listing=True)
    except RequestError as error:
        print(error.message, "|", error.hint.splitlines()[0])
sys.exit("torch" in sys.modules)
"""


def test_they_are_those_that_the_libraries_list_themselves() -> None:
    found = read_installed_names()
    timm_source = import_source("timm")
    names = {
        name.partition(".")[0] for name in [*timm.list_models(), *timm_source.names(), *timm_source.list_unlisted()]
    }
    assert names <= set(found["timm"])
    assert all(map(timm_source.has, found["timm"]))
    assert set(torchvision.models.list_models()) == set(found["torchvision"])
    assert set(open_clip.list_models()) == set(found["open_clip"])


def test_a_typo_is_answered_before_anything_was_listed_and_without_torch(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", TYPO], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    first, second, third = ended.stdout.splitlines()
    assert first.startswith("there is no model 'resnt50' in timm, torchvision, open_clip, bundled | did you mean timm:")
    assert second.startswith("timm has no model 'resnt50' | did you mean timm:resnet50")
    assert third.startswith("torchvision has no model 'resnt50' | did you mean torchvision:resnet50")


def test_models_that_a_process_has_added_are_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "read", lambda name, key=None: None)
    check_name("a_model_of_mine", by_listing=True)  # torch is imported here
