"""The zoo: every family keeps the laws (slow), an everyday dozen does in seconds, and the table of it is fresh."""

import json
from dataclasses import asdict

import pytest
import timm
import torch

import zoo

# One of each kind: a CNN with and without ReLUs, channels last, class token, pooled tokens, hybrid, mixer, MLP-like.
EVERYDAY = [
    "timm:test_byobnet",
    "timm:test_convnext",
    "timm:test_efficientnet",
    "timm:test_mambaout",
    "timm:test_nfnet",
    "timm:test_resnet",
    "timm:test_vit",
    "timm:test_vit_relpos",
    "timm:convit_tiny",
    "timm:crossvit_tiny_240",
    "timm:gmlp_ti16_224",
    "timm:levit_128s",
    "timm:mobilenetv3_small_050",
    "torchvision:squeezenet1_1",
]
RESULTS = json.loads(zoo.RESULTS.read_text())
EXAMINED = [family.model for family in zoo.families() if not zoo.is_left_out(family.model)]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "model",
    [pytest.param(model, marks=[] if model in EVERYDAY else [pytest.mark.slow], id=model) for model in EXAMINED],
)
def test_every_family_keeps_the_laws_and_is_as_the_table_says(model):
    if model in zoo.PENDING:
        pytest.skip("not examined yet: python tests/make_architectures.py --go-on")
    if model in zoo.REFUSED:
        with pytest.raises(Exception, match=zoo.REFUSED[model]):
            zoo.load(model)
        return
    assert asdict(zoo.examine(model)) == RESULTS[model], "run: python tests/make_architectures.py"


def test_no_family_is_missing():
    assert set(zoo.TIMM) == set(timm.list_modules()), "tests/zoo.json needs the smallest model of each module"
    assert all(model in timm.list_models(module=module) for module, model in zoo.TIMM.items())
    assert len(zoo.classifiers()) >= 80


def test_every_family_stands_in_the_results_or_has_a_reason():
    models = {family.model for family in zoo.families()}
    assert set(RESULTS) | set(zoo.REFUSED) | zoo.HUGE | zoo.PENDING == models
    assert not set(RESULTS) & (zoo.PENDING | set(zoo.REFUSED))
    assert len(zoo.REFUSED) <= 5


def test_the_page_is_made_of_the_results():
    assert zoo.TABLE.read_text() == zoo.page(), "run: python tests/make_architectures.py"
