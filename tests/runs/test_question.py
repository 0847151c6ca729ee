"""What is asked of the bundled model, from words to files: scores, features, channels, likeness."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import Result
from readback import ledger
from typer.testing import CliRunner

import camcli
from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.images.decode import decode
from camcli.models import load
from camcli.runs.job.job import Job
from camcli.runs.worker.resolve import resolve_job
from conftest import ROOT

SAMPLES = ROOT / "sample_images"
COFFEE, CAT = SAMPLES / "coffee.png", SAMPLES / "chelsea.png"


def do(*words: str) -> Result:
    return CliRunner().invoke(app, ["explain", *words, "--root", str(SAMPLES), "--out", "out"])


def lines(*words: str) -> list[dict[str, Any]]:
    result = do(*map(str, words))
    assert result.exit_code == 0, result.stderr
    return list(ledger(Path("out")))


def maps(*words: str) -> list[np.ndarray]:
    return [np.load(Path("out") / one["files"]["array"]) for one in lines(*words, "--save", "array")]


@pytest.fixture
def network() -> Callable[..., camcli.Network]:
    return lambda **options: load.load("bundled:efficientnet-lite0", **options)


def shown(network: camcli.Network, picture: Path) -> torch.Tensor:
    image, _ = network.preprocess(decode(picture, "#ffffff"))
    return image[None]


# ---- scores


@pytest.mark.usefixtures("here")
def test_a_contrast_is_a_margin_over_the_class_named() -> None:
    [one] = lines(COFFEE, "--contrast", "espresso, soup bowl")
    [same] = lines(COFFEE, "-t", "espresso", "--score", "margin", "--versus", "soup bowl", "--overwrite")
    assert (one["label"], one["versus"], one["score"]) == ("espresso", "soup bowl", same["score"])
    with torch.no_grad():
        model = load.load("bundled:efficientnet-lite0")
        scores = model.module(shown(model, COFFEE))[0]
    wanted = scores[967] - scores[model.labels.find("soup bowl")]
    assert one["score"] == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("words", [("-t", "espresso"), ("--versus", "tabby"), ("--score", "logprob")])
def test_a_contrast_says_it_all(words: tuple[str, ...]) -> None:
    result = do(str(COFFEE), "--contrast", "espresso,tabby", *words)
    assert result.exit_code == 2
    assert "--contrast sets --target, --score and --versus" in result.stderr


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("words", ["espresso", "espresso,", ",tabby"])
def test_a_contrast_names_two_classes(words: str) -> None:
    result = do(str(COFFEE), "--contrast", words)
    assert result.exit_code == 2
    assert "does not name two classes" in result.stderr


@pytest.mark.usefixtures("here")
def test_a_counterfactual_turns_the_map() -> None:
    [plain] = maps(COFFEE)
    [turned] = maps(COFFEE, "--counterfactual", "--overwrite")
    np.testing.assert_allclose(turned, -plain, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("here")
def test_every_probable_class_has_a_map() -> None:
    found = lines(COFFEE, CAT, "-t", "all>0.1")
    assert {one["name"]: one["label"] for one in found}.keys() == {"coffee.png", "chelsea.png"}
    assert all(one["probability"] > 0.1 for one in found)
    assert {one["label"] for one in found if one["name"] == "chelsea.png"} == {"tiger cat", "Egyptian cat", "tabby"}


@pytest.mark.usefixtures("here")
def test_probabilities_are_as_the_user_says() -> None:
    [soft] = lines(COFFEE)
    [apart] = lines(COFFEE, "--activation", "sigmoid", "--overwrite")
    [number] = lines(COFFEE, "--activation", "none", "--overwrite")
    assert soft["score"] == pytest.approx(apart["score"])
    assert apart["probability"] == pytest.approx(1 / (1 + np.exp(-apart["score"])))
    assert number["probability"] is None
    result = do(str(COFFEE), "--activation", "none", "--score", "logprob", "--overwrite")
    assert result.exit_code == 2
    assert "the scores of this model have no probabilities" in result.stderr


# ---- features


@pytest.mark.usefixtures("here")
def test_a_channel_of_the_backbone(network: Callable[..., camcli.Network]) -> None:
    headless = network(head="none")
    found = lines(COFFEE, CAT, "--head", "none", "-t", "channel:112,565", "--save", "array")
    assert [(one["name"], one["channel"], one["label"]) for one in found] == [
        ("coffee.png", 112, "channel 112"),
        ("coffee.png", 565, "channel 565"),
        ("chelsea.png", 112, "channel 112"),
        ("chelsea.png", 565, "channel 565"),
    ]
    assert found[0]["files"]["array"] == "coffee.png.channel112.npy"
    with torch.no_grad():
        features = torch.cat([headless.module(shown(headless, one)) for one in (COFFEE, CAT)])
    wanted = [float(features[0, 112]), float(features[0, 565]), float(features[1, 112]), float(features[1, 565])]
    assert [one["score"] for one in found] == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.usefixtures("here")
def test_the_head_is_left_out_where_a_target_asks_for_a_feature() -> None:
    [named] = maps(COFFEE, "--head", "none", "-t", "channel:565")
    result = do(str(COFFEE), "-t", "channel:565", "--save", "array", "--overwrite")
    assert "the model's head is removed" in result.stderr
    [one] = ledger(Path("out"))
    np.testing.assert_array_equal(np.load(Path("out") / one["files"]["array"]), named)


@pytest.mark.usefixtures("here")
def test_the_three_ways_to_a_channel_agree() -> None:
    """By the pooled feature, by the map before pooling, and by looking at the layer: one map, up to its scale."""
    [pooled] = maps(COFFEE, "--head", "none", "-t", "channel:565")
    [raw] = maps(COFFEE, "--head", "none", "--pool", "none", "-t", "channel:565", "--overwrite")
    [seen] = maps(COFFEE, "--method", "activation", "-t", "channel:565", "--overwrite")
    assert seen.max() > 0
    np.testing.assert_allclose(pooled * seen.size, seen, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(raw * seen.size, seen, rtol=1e-4, atol=1e-5)


def test_the_channels_that_matter_most_add_up_to_the_score() -> None:
    model = load.load("bundled:efficientnet-lite0")
    [ones] = camcli.Explainer(model, top_channels=1280)(shown(model, COFFEE))
    weights = [one.weight for one in ones]
    assert weights == sorted(weights, reverse=True)
    assert len({one.channel for one in ones}) == len(ones) == 1280
    assert sum(weights) == pytest.approx(ones[0].score - float(model.module.classifier.bias[967].detach()), rel=1e-3)
    # Those that are zero everywhere are shown as such.
    silent = [one for one in ones if not one.map.any()]
    assert silent
    assert all("is inactive here" in one.notes[0] for one in silent)


@pytest.mark.usefixtures("here")
def test_the_channels_of_a_class_are_of_that_class() -> None:
    picture = SAMPLES / "cat-and-espresso.jpg"
    cup = lines(picture, "-t", "channels:top:2:espresso", "-t", "channels:top:2:Egyptian cat")
    assert [one["label"] for one in cup] == ["espresso", "espresso", "Egyptian cat", "Egyptian cat"]
    middle = 0.5 * decode(picture, "#ffffff").width
    assert cup[0]["peak"][0] > middle - 20 > cup[2]["peak"][0]  # half a cell
    assert cup[0]["files"]["overlay"].startswith("cat-and-espresso.jpg.967-espresso.channel")


# ---- likeness


@pytest.mark.usefixtures("here")
def test_likeness_is_the_cosine_of_features(network: Callable[..., camcli.Network]) -> None:
    headless = network(head="none")
    found = lines(COFFEE, CAT, "-t", f"similar:{COFFEE}")
    with torch.no_grad():
        coffee, cat = (headless.module(shown(headless, one))[0] for one in (COFFEE, CAT))
    assert found[0]["score"] == pytest.approx(1, abs=1e-5)
    assert "it is the reference itself" in " ".join(found[0]["notes"])
    assert found[1]["score"] == pytest.approx(float(F.cosine_similarity(coffee, cat, dim=0)), rel=1e-4)
    assert found[1]["label"] == f"similar to {COFFEE}"


@pytest.mark.usefixtures("here")
def test_what_is_like_a_cup_is_the_cup() -> None:
    picture = SAMPLES / "cat-and-espresso.jpg"
    cup, cat = lines(picture, "-t", f"similar:{COFFEE}", "-t", f"similar:{CAT}")
    middle = 0.5 * decode(picture, "#ffffff").width
    assert cup["peak"][0] > middle > cat["peak"][0]
    words = ("-t", f"similar:{COFFEE}", "--score", "margin", "--versus", f"similar:{CAT}")
    [margin] = lines(picture, *words, "--overwrite")
    assert margin["versus"].endswith("chelsea.png")
    assert margin["score"] == pytest.approx(cup["score"] - cat["score"], abs=1e-5)


def test_in_python_too() -> None:
    [one] = camcli.explain(CAT, target=f"similar:{COFFEE}", method="hirescam")
    assert one.map.max() > 0
    [first, second] = camcli.explain(COFFEE, target="channels:top:2", method="hirescam")
    assert first.weight >= second.weight


# ---- what cannot be asked


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"target": ("channel:1",), "head": "keep"}, "is a feature, and --head keep", "leave --head out"),
        ({"target": ("channel:1280",)}, "there is no channel 1280", "1280 features"),
        ({"target": ("channel:1", "tabby")}, "tabby", ""),
        ({"target": ("predicted",), "method": "activation"}, "shows a channel of the layer", "channels:top:5"),
        ({"target": ("tabby",), "method": "activation"}, "name none", "channel:12,99"),
        ({"target": ("channels:top:5", "tabby")}, "select the layer's channels in different ways", "same N"),
        ({"target": ("similar:",)}, "names no image", "similar:path"),
        ({"target": ("similar:nowhere.png",)}, r"nowhere.png", ""),
        ({"target": (f"similar:{COFFEE}", "channel:1")}, "cannot be combined in one run", "use only similar:FILE"),
        ({"pool": "none"}, "head", ""),
        ({"score": "logits"}, "there is no score 'logits'", "did you mean"),
        ({"versus": ("tabby",), "score": "logit"}, "--versus cannot be used with it", "margin"),
        ({"score": "margin", "versus": ("nothing",)}, "there is no class 'nothing'", ""),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_way_out(options: dict[str, Any], message: str, hint: str) -> None:
    from camcli.runs.worker.worker import Worker

    with pytest.raises(RequestError, match=message) as caught:
        Worker(Job(inputs=(str(COFFEE),), **options))
    assert hint in caught.value.hint


def test_a_channel_that_the_layer_does_not_have_is_refused_before_the_first_picture(here: Path) -> None:
    result = do(str(COFFEE), "--method", "activation", "-t", "channel:5,1280")
    assert result.exit_code == 2
    assert "there is no channel 1280 at the layer 'bn2'" in result.stderr
    assert not (here / "out").exists()
    result = do(str(COFFEE), "-t", "channels:top:2000")
    assert result.exit_code == 2
    assert "the layer 'bn2' has 1280" in result.stderr


def test_a_reference_that_changes_is_another_job(here: Path) -> None:
    (here / "like.png").write_bytes(COFFEE.read_bytes())
    lines(CAT, "-t", "similar:like.png")
    (here / "like.png").write_bytes(CAT.read_bytes())
    result = do(str(CAT), "-t", "similar:like.png")
    assert result.exit_code == 2
    assert "another job" in result.stderr


def test_a_question_names_what_it_asks_about() -> None:
    resolved = resolve_job(Job(target=("channels:top:3:tabby",)))
    assert (resolved.top_channels, resolved.network.headless) == (3, False)
    assert list(resolved.target_rule(CAT, torch.zeros(1000))) == [281]
    resolved = resolve_job(Job(target=("channel:3",)))
    assert resolved.network.headless
    assert json.dumps(Job(target=("channel:3",)).as_dict())
