"""Names of the last release work, and say what to write instead."""

import dataclasses

import pytest
import torch

import camcli
from camcli.engine.explainer import Explainer
from camcli.images.transform import Preprocess
from camcli.methods.concept import Concepts
from camcli.targets.readers.spec import OutputSpec
from kit.networks import Small, named, pictures

IMAGES = pictures(2, 16)


@pytest.mark.parametrize(("old", "new"), [("Outlet", OutputSpec), ("Prepare", Preprocess)])
def test_old_names_of_the_package(old: str, new: type) -> None:
    with pytest.warns(DeprecationWarning, match=rf"camcli\.{old} is deprecated .*; use camcli\.{new.__name__}"):
        assert getattr(camcli, old) is new
    assert old not in dir(camcli)


def test_a_network_has_its_old_arguments_and_attributes() -> None:
    network = named(Small(), 3)
    with pytest.warns(DeprecationWarning, match=r"Network\.prepare is deprecated"):
        assert network.prepare is network.preprocess
    with pytest.warns(DeprecationWarning, match=r"Network\.outlet is deprecated"):
        assert network.outlet is network.output_spec
    with pytest.warns(DeprecationWarning, match=r"Network\.wrapped is deprecated"):
        assert network.wrapped is None
    spec = OutputSpec("features")
    with pytest.warns(DeprecationWarning, match=r"Network\(outlet=\.\.\.\) is deprecated .*; use output_spec="):
        assert dataclasses.replace(network, outlet=spec).output_spec is spec
    with pytest.warns(DeprecationWarning, match="wrapped_module="):
        assert named(Small(), 3, wrapped=network.module).wrapped_module is network.module


def test_an_explainer_has_its_old_arguments_and_attributes() -> None:
    with pytest.warns(DeprecationWarning) as caught:
        explainer = Explainer(Small(), layers="conv2", rows=3, channels=2)
    assert [str(one.message).split("; ")[1] for one in caught] == ["use batch_size=", "use top_channels="]
    assert (explainer.setup.batch_size, explainer.top_channels) == (3, 2)
    with pytest.warns(DeprecationWarning, match=r"use Explainer\.bound_methods"):
        assert explainer.recipes == explainer.bound_methods
    with pytest.warns(DeprecationWarning, match=r"use Explainer\.fitted_concepts"):
        explainer.fitted = {}


def test_old_arguments_of_methods() -> None:
    explainer = Explainer(Small(), layers="conv2")
    with pytest.warns(DeprecationWarning, match=r"Explainer\.results\(choose=\.\.\.\) is deprecated .*; use select="):
        [[one], _] = explainer.results(IMAGES, choose=lambda row, scores: [1])
    assert one.index == 1
    network = named(Small(), 3)
    with torch.no_grad(), pytest.warns(DeprecationWarning, match="use region_mask="):
        network.read(network.module(IMAGES), 2, region=None)


def test_values_have_their_old_attributes_and_methods() -> None:
    preprocess = named(Small(), 3).preprocess
    with pytest.warns(DeprecationWarning, match=r"use Preprocess\.max_divisor"):
        assert preprocess.spare(100, 100) == preprocess.max_divisor(100, 100)
    view = preprocess.view(100, 100)
    with pytest.warns(DeprecationWarning, match=r"use View\.sees_whole_picture"):
        assert view.whole is view.sees_whole_picture
    with pytest.warns(DeprecationWarning, match=r"use OutputSpec\.describe_no_target"):
        assert OutputSpec().nothing() == OutputSpec().describe_no_target()
    zeros = torch.zeros(1)
    with pytest.warns(DeprecationWarning, match=r"Concepts\(held=\.\.\.\) is deprecated"):
        concepts = Concepts(maps=zeros, held=zeros + 1, negative_share=zeros, classes=zeros, score_gains=zeros)
    with pytest.warns(DeprecationWarning, match=r"use Concepts\.kept_share"):
        assert concepts.held == 1


def test_an_explainers_old_methods_are_functions() -> None:
    explainer = Explainer(Small(), layers="conv2")
    with pytest.warns(DeprecationWarning, match=r"use camcli\.engine\.speed\.tune\.optimize_weights"):
        assert explainer.rearrange(IMAGES[:1]) == 1
    with pytest.warns(DeprecationWarning, match=r"use camcli\.engine\.speed\.tune\.copy_to"):
        other = explainer.on(torch.device("cpu"), IMAGES[:1])
    assert other.setup.module is not explainer.setup.module
    with pytest.warns(DeprecationWarning, match=r"use camcli\.engine\.speed\.tune\.compile_prefix"):
        assert "a batch takes" in explainer.compile(IMAGES, least=1000.0).reason


def test_a_method_of_another_package_may_ask_for_an_old_signal(bring) -> None:
    def old(images, ask):
        [scores] = ask([images])
        return scores.reshape(-1, 1, 1).expand(-1, *images.shape[2:])

    def new(images, score_of):
        [scores] = score_of([images])
        return scores.reshape(-1, 1, 1).expand(-1, *images.shape[2:])

    with pytest.warns(DeprecationWarning, match="signal 'ask', which the method 'old' takes, .* use 'score_of'"):
        [[before], _] = Explainer(Small(), method=bring(old))(IMAGES, 1)
    [[after], _] = Explainer(Small(), method=bring(new))(IMAGES, 1)
    assert (before.map == after.map).all()
