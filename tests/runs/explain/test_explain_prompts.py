"""``camcli explain`` with prompts, on small models of open_clip."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from click.testing import Result
from clips import tiny_clip
from prompt_files import written
from readback import facts, files, ledger
from shared import ROOT
from torch import Tensor
from typer.testing import CliRunner

import camcli
from camcli import Labels
from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.images.decode import decode
from camcli.models import load
from camcli.models.adapters import templates

SAMPLES = ROOT / "sample_images"
COFFEE, CAT = SAMPLES / "coffee.png", SAMPLES / "chelsea.png"


# ---- of open_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    tiny_clip(folder)
    return f"open_clip:local-dir:{folder}"


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("siglip")
    tiny_clip(folder, init_logit_bias=-10)
    return f"open_clip:local-dir:{folder}"


def test_templates_are_averaged_as_open_clip_does_it(clip: str) -> None:
    folder = clip.removeprefix("open_clip:")
    model = open_clip.create_model(folder).eval()
    patterns = templates.expand_templates(["imagenet"])
    wanted = open_clip.build_zero_shot_classifier(
        model,
        open_clip.get_tokenizer(folder),
        ["cat", "dog"],
        [lambda c, one=one: one.replace("{}", c) for one in patterns],
    )
    network = load.load(clip, text=("cat", "dog"), template=("imagenet",))
    torch.testing.assert_close(network.module.prompts, wanted.T, atol=1e-6, rtol=1e-5)
    assert network.labels == Labels(("cat", "dog"), synonyms=False, noun="prompt", asked=2)


def test_contrast_prompts_stand_behind_the_others(clip: str) -> None:
    network = load.load(clip, text=("a cat", "a dog"), contrast=("a wall", " "), template=("the {}",))
    whole = load.load(clip, text=("the a cat", "the a dog", "the a wall"))
    torch.testing.assert_close(network.module.prompts[:3], whole.module.prompts, atol=1e-6, rtol=1e-5)
    assert network.labels.names == ("a cat", "a dog", "a wall", '""')
    assert (network.labels.explainable_count, len(network.labels)) == (2, 4)
    assert network.cosine == (pytest.approx(1 / 0.07), 0.0)
    assert network.activation == "softmax"


def test_the_empty_prompt_is_kept_beside_the_others(clip: str) -> None:
    network = load.load(clip, text=("a cat",), contrast=("",))
    torch.testing.assert_close(network.module.blank, network.module.prompts[1])
    assert load.load(clip, weights="random").module.blank.shape == (16,)


def test_one_prompt_alone_has_no_probability(clip: str, siglip: str) -> None:
    assert load.load(clip, text=("a cat",)).activation == "none"
    assert load.load(siglip, text=("a cat",)).activation == "sigmoid"
    assert load.load(siglip, text=("a cat",)).cosine == (pytest.approx(1 / 0.07), -10.0)


def test_a_prompt_that_is_cut_is_a_note(clip: str) -> None:
    network = load.load(clip, text=("a cat", "cat " * 100))
    [note] = network.notes
    assert "100 tokens long and the model reads 75" in note


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast": ("a wall",)}, "'a wall' has no effect without prompts"),
        ({"template": ("a {}",)}, "'a {}' has no effect without prompts"),
        ({"text": ("a cat",), "text_tower": "t.py:f"}, "has a text tower of its own"),
        ({"text": ("a cat",), "head": "none"}, "prompts are the classes of a model"),
    ],
)
def test_what_does_not_go_with_prompts(clip: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load.load(clip, weights="random", **options)


# ---- from the shell


def do(*words: Any) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, words), "--root", str(SAMPLES), "--out", "out", "--overwrite"])


def lines(*words: Any) -> list[dict[str, Any]]:
    result = do(*words)
    assert result.exit_code == 0, result.stderr
    return [*ledger("out")]


def scored(model: str, picture: Path, *texts: str, **options: Any) -> Tensor:
    network = load.load(model, text=texts, **options)
    image, _ = network.preprocess(decode(picture, "#ffffff"))
    with torch.no_grad():
        return network.module(image[None])[0]


@pytest.mark.usefixtures("here")
def test_every_prompt_has_a_map_and_the_best_alone_if_asked(clip: str) -> None:
    words = (COFFEE, "-m", clip, "--text", "a cup", "--texts", written("more.txt", "a cat\na wall\n"))
    found = lines(*words)
    scores = scored(clip, COFFEE, "a cup", "a cat", "a wall")
    assert [(one["index"], one["label"]) for one in found] == [(0, "a cup"), (1, "a cat"), (2, "a wall")]
    assert [one["score"] for one in found] == pytest.approx(scores.tolist(), rel=1e-4)
    assert [one["probability"] for one in found] == pytest.approx(scores.softmax(0).tolist(), rel=1e-3)
    assert files() == [
        f"coffee.png.{number}-a-{word}.overlay.jpg" for number, word in enumerate(("cup", "cat", "wall"))
    ]
    [best] = lines(*words, "--target", "predicted")
    assert best["index"] == int(scores.argmax())
    assert facts()["prompts"] == {"explained": ["a cup", "a cat", "a wall"], "contrast": [], "templates": ["{}"]}


@pytest.mark.usefixtures("here")
def test_words_are_classified_in_templates_with_maps(clip: str) -> None:
    """Zero-shot classification: the classes in a file, the best one explained."""
    file = written("classes.txt", "tabby cat\nespresso\ntripod\n")
    result = do(SAMPLES, "-m", clip, "--texts", file, "--template", "imagenet-simple", "--target", "predicted")
    assert result.exit_code == 0
    assert "prompts: 'tabby cat', 'espresso', 'tripod' (in 'imagenet-simple')" in result.stderr
    found = [*ledger("out")]
    assert len(found) == len({one["name"] for one in found}) == 7
    scores = scored(clip, CAT, "tabby cat", "espresso", "tripod", template=("imagenet-simple",))
    [cat] = [one for one in found if one["name"] == "chelsea.png"]
    assert (cat["index"], cat["probability"]) == (
        int(scores.argmax()),
        pytest.approx(float(scores.softmax(0).max()), rel=1e-3),
    )
    assert len(facts()["prompts"]["templates"]) == 7


@pytest.mark.usefixtures("here")
def test_prompts_for_contrast_are_in_the_softmax(clip: str) -> None:
    found = lines(COFFEE, "-m", clip, "--text", "cup", "--text", "cat", "--versus", "wall", "--versus", "")
    sure = scored(clip, COFFEE, "cup", "cat", contrast=("wall", "")).softmax(0)
    assert [one["label"] for one in found] == ["cup", "cat"]
    assert [one["score"] for one in found] == pytest.approx(sure[:2].tolist(), rel=1e-3)
    assert [one["probability"] for one in found] == pytest.approx(sure[:2].tolist(), rel=1e-3)
    # A word that is a prompt means that prompt; what others are compared with is not explained.
    [cup] = lines(COFFEE, "-m", clip, "--text", "cup", "--text", "cat", "--versus", "cat")
    assert cup["score"] == pytest.approx(float(scored(clip, COFFEE, "cup", "cat").softmax(0)[0]), rel=1e-3)
    scores = scored(clip, COFFEE, "cup", "cat", "wall")
    [cup] = lines(COFFEE, "-m", clip, "--text", "cup", "--contrast", "cup,wall")
    assert cup["versus"] == "wall"
    assert cup["score"] == pytest.approx(float(scores[0] - scores[2]), rel=1e-3, abs=1e-5)
    assert facts()["prompts"]["contrast"] == ["wall"]


@pytest.mark.usefixtures("here")
def test_pictures_compete_among_their_own_prompts(clip: str) -> None:
    file = written(
        "own.csv", f"picture,text\n{COFFEE},a cup\n{COFFEE},a wall\n{CAT},a cat\n{CAT},a wall\n{CAT},a dog\n"
    )
    found = lines(COFFEE, CAT, "-m", clip, "--texts", file, "--versus", "a box")
    texts = {COFFEE.name: ("a cup", "a wall"), CAT.name: ("a cat", "a wall", "a dog")}
    for picture in (COFFEE, CAT):
        own = {one["label"]: one for one in found if one["name"] == picture.name}
        sure = scored(clip, picture, *texts[picture.name], contrast=("a box",)).softmax(0)
        assert {label: one["score"] for label, one in own.items()} == pytest.approx(
            dict(zip(texts[picture.name], sure.tolist(), strict=False)), rel=1e-3
        )
    best = lines(COFFEE, CAT, "-m", clip, "--texts", file, "--target", "predicted", "--method", "occlusion")
    assert [one["label"] in texts[one["name"]] for one in best] == [True, True]
    result = do(COFFEE, CAT, "-m", clip, "--texts", file, "--target", "a cup")
    assert result.exit_code == 1
    assert "'a cup' is none of its own prompts" in result.stderr


@pytest.mark.usefixtures("here")
def test_a_picture_without_prompts_of_its_own_is_found_before_the_first(clip: str) -> None:
    file = written("own.csv", f"{COFFEE},a cup\n{COFFEE},a cat\n{SAMPLES / 'camera.png'},a man\n")
    result = do(COFFEE, CAT, "-m", clip, "--texts", file)
    assert result.exit_code == 2
    assert "own.csv lists prompts of 1 of the 2 images" in result.stderr
    assert not Path("out").exists()
    result = do(COFFEE, "-m", clip, "--texts", file)
    assert result.exit_code == 0
    assert "own.csv lists 1 that are not among the images" in result.stderr
    assert "prompts: 3, listed for each image" in result.stderr
    # Of names on standard input only those fail that are not listed.
    words = ["explain", "-", "-m", clip, "--texts", file, "--root", str(SAMPLES), "--out", "in"]
    result = CliRunner().invoke(app, words, input=f"{COFFEE}\n{CAT}\n")
    assert result.exit_code == 1
    assert [one["error"] is None for one in ledger("in")] == [True, True, False]
    assert "image by image" not in result.stderr


@pytest.mark.usefixtures("here")
def test_many_prompts_are_remarked_on(clip: str) -> None:
    file = written("many.txt", "\n".join(f"thing {number}" for number in range(21)))
    assert "21 prompts are explained for every image" in do(COFFEE, "-m", clip, "--texts", file).stderr
    assert "for every image" not in do(COFFEE, "-m", clip, "--texts", file, "-t", "predicted").stderr


@pytest.mark.usefixtures("here")
def test_a_sigmoid_has_no_place_for_contrast(siglip: str) -> None:
    words = (COFFEE, "-m", siglip, "--text", "cup", "--text", "cat")
    scores = scored(siglip, COFFEE, "cup", "cat", "wall")
    found = lines(*words)
    assert [one["probability"] for one in found] == pytest.approx(scores[:2].sigmoid().tolist(), rel=1e-3)
    found = lines(*words, "--score", "similarity")
    assert [one["score"] for one in found] == pytest.approx(((scores[:2] + 10) * 0.07).tolist(), rel=1e-3)
    for score in ("probability", "logprob"):
        result = do(*words, "--versus", "wall", "--score", score)
        assert result.exit_code == 2
        assert "so contrast prompts ('wall') have no effect" in result.stderr
        assert "--score margin, or let them compete: --activation softmax" in result.stderr
    found = lines(*words, "--versus", "wall")
    assert [one["score"] for one in found] == pytest.approx((scores[:2] - scores[2]).tolist(), rel=1e-2, abs=1e-5)
    found = lines(*words, "--versus", "wall", "--activation", "softmax")
    assert [one["score"] for one in found] == pytest.approx(scores.softmax(0)[:2].tolist(), rel=1e-3)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("--text", "a", "--versus", "b", "--score", "logit"), "'logit' does not compare prompts", "logprob"),
        (("--text", "a", "--versus", "b", "--score", "similarity"), "'similarity' does not compare prompts", "margin"),
        (("--text", "a", "--score", "margin"), "the job has a single prompt", "--versus"),
        (("--text", "a", "--score", "probability"), "the job has a single prompt", "--versus"),
        (
            ("--text", "a", "--text", "b", "--versus", "a", "--versus", "b"),
            "every prompt is also a contrast prompt",
            "--text",
        ),
        (("--text", "a", "-t", "channel:3"), "'channel:3' is a feature", "one of them"),
        (("--text", "a", "-t", "b"), "there is no prompt 'b'", "a prompt is given by its index"),
        (("--text", "a", "--text", "b", "--targets", "t.csv", "-t", "all"), "both a target", ""),
        (("--texts", "own.csv", "--method", "finer-cam"), "finds rivals among all prompts", "gradcam"),
        (("--texts", "own.csv", "--score", "logprob"), "an image in own.csv has a single prompt", "--versus"),
        (("--template", "a {}"), "has no effect without prompts", "--text"),
        (("--text", "a", "--template", "photo"), "'photo' has no places for a prompt", "imagenet and imagenet-simple"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_asked_of_prompts(clip: str, words: tuple[str, ...], message: str, hint: str) -> None:
    written("own.csv", f"{COFFEE},a cup\n{COFFEE},a cat\n{CAT},a cat\n")
    result = do(COFFEE, "-m", clip, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert hint in result.stderr
    assert not Path("out").exists()


def test_in_python_too(clip: str) -> None:
    found = list(camcli.explain(COFFEE, model=clip, text=["a cup", "a cat"], template="a {}", versus="a wall"))
    assert [one.label for one in found] == ["a cup", "a cat"]
    assert sum(one.score for one in found) < 1


@pytest.mark.usefixtures("here")
def test_a_run_is_repeated_by_its_record(clip: str) -> None:
    words = ("--text", "cup", "--text", "cat", "--versus", "", "--template", "a {}", "--score", "logprob")
    first = CliRunner().invoke(app, ["explain", str(COFFEE), "-m", clip, *words, "--out", "out"])
    assert first.exit_code == 0
    again = CliRunner().invoke(app, ["explain", "--config", "out/run.json"])
    assert again.exit_code == 0
    assert "1 done before" in again.stderr
    assert facts()["job"]["versus"] == [""]
