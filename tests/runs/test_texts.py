"""Prompts: which there are, whom they compete with, what their scores are, and what is said of them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from click.testing import Result
from clips import tiny_clip
from networks import named, pictures
from readback import facts, files, ledger
from torch import Tensor, nn
from typer.testing import CliRunner

import camcli
from camcli import Explainer, Labels
from camcli.base.errors import PictureError, RequestError
from camcli.cli import app
from camcli.images.decode import decode
from camcli.methods import METHODS
from camcli.models import load
from camcli.models.adapters import templates, zero_shot
from camcli.models.adapters.zero_shot import ZeroShotClassifier, embed_prompts
from camcli.models.sources import tokenizer
from camcli.runs.job.job import Job
from camcli.runs.job.prompts import Prompts, read_prompts
from camcli.targets import is_multi_target, resolve
from camcli.targets.scores import SCORES
from camcli.targets.target import Score, mask_competing
from conftest import ROOT

SAMPLES = ROOT / "sample_images"
COFFEE, CAT = SAMPLES / "coffee.png", SAMPLES / "chelsea.png"
PICTURE = Path("photos/a.jpg")

# ---- which prompts there are


def written(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


@pytest.mark.parametrize("content", ["a dog\na cat\n", "\ufeffa dog\r\n\r\n  a cat \r\n", "\n\na dog\n \na cat"])
def test_a_plain_file_has_one_prompt_a_line(here: Path, content: str) -> None:
    found = read_prompts(Job(texts=written("words.txt", content)))
    assert found == Prompts(("a dog", "a cat"))
    assert read_prompts(Job(text=("a bird",), texts="words.txt")).explained == ("a bird", "a dog", "a cat")
    assert read_prompts(Job()) is None


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"texts": "nowhere.txt"}, "'nowhere.txt' cannot be read: No such file", ""),
        ({"texts": "latin.txt"}, "is not UTF-8 text", "one prompt a line"),
        ({"texts": "blank.txt"}, "'blank.txt' is empty", ".csv or .jsonl"),
        ({"texts": "own.csv", "text": ("a dog",)}, "both prompts for every image", "--versus"),
        ({"texts": "own.csv", "group": "2"}, "one sample", "plain file"),
        ({"texts": "half.csv"}, "line 2: an image and its prompt are needed", 'picture,prompt or {"picture": "a.jpg"'),
        ({"texts": "number.jsonl"}, "its prompt a text or a list", ""),
        ({"texts": "nothing.csv"}, "the prompts file 'nothing.csv' lists nothing", ""),
    ],
)
def test_a_file_of_prompts_that_cannot_be_used(here: Path, options: dict[str, Any], message: str, hint: str) -> None:
    written("latin.txt", "Zürich".encode("latin-1"))
    written("blank.txt", "\n \n")
    written("own.csv", "a.jpg,a dog\n")
    written("half.csv", "picture,text\na.jpg,\n")
    written("number.jsonl", '{"picture": "a.jpg", "text": 1.5}\n')
    written("nothing.csv", "\n")
    with pytest.raises(RequestError, match=message) as caught:
        read_prompts(Job(**options))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.csv", 'picture,text\na.jpg,a dog\nb.jpg,"a cat, asleep"\na.jpg,a cup\nb.jpg,a cup\na.jpg,a dog\n'),
        ("own.csv", 'a.jpg,a dog,a cup\nb.jpg,"a cat, asleep",a cup\n'),
        (
            "own.jsonl",
            '{"picture": "a.jpg", "text": ["a dog", "a cup"]}\n'
            '{"picture": "b.jpg", "prompt": ["a cat, asleep", "a cup"]}',
        ),
    ],
)
def test_each_picture_has_prompts_of_its_own(here: Path, name: str, content: str) -> None:
    written("a.jpg", "")
    written("b.jpg", "")
    found = read_prompts(Job(texts=written(name, content)))
    own = {found.explained[number] for number in found.find_competing(Path("a.jpg"))}
    assert own == {"a dog", "a cup"}
    assert [found.explained[number] for number in found.find_competing(Path("b.jpg"))] == ["a cat, asleep", "a cup"]
    assert found.min_competing == 2
    with pytest.raises(PictureError, match="lists no prompt for this image"):
        found.find_competing(Path("c.jpg"))


def test_a_word_that_is_a_prompt_means_it_and_any_other_is_one_for_contrast(here: Path) -> None:
    found = read_prompts(Job(text=("a dog", "a cat"), versus=("A  Cat", "a wall", "", "A wall")))
    assert (found.contrast, found.versus) == (("a wall", ""), (1, 2, 3))
    assert found.find_competing(PICTURE) == ()
    assert found.min_competing == 4
    assert str(found) == "'a dog', 'a cat'; for contrast 'a wall', ''"


def test_a_prompt_of_some_pictures_is_for_contrast_in_the_others(here: Path) -> None:
    written("a.jpg", "")
    written("b.jpg", "")
    file = written("own.csv", "a.jpg,a dog\na.jpg,a cat\nb.jpg,a cup\n")
    found = read_prompts(Job(texts=file, versus=("a cat", "a wall")))
    assert (found.explained, found.contrast) == (("a dog", "a cat", "a cup"), ("a cat", "a wall"))
    assert found.find_competing(Path("a.jpg")) == (0, 1, 4)  # of which the cat is its own
    assert found.find_competing(Path("b.jpg")) == (2, 3, 4)
    assert found.versus == (1, 3, 4)


def test_many_prompts_are_shown_in_part() -> None:
    assert str(Prompts(tuple(f"thing {number}" for number in range(9)))).endswith("'thing 4' and 4 more")
    assert "…" in str(Prompts(("word " * 40,)))


# ---- what may be explained

CONTRASTED = Labels(("a dog", "a cat", "a wall"), synonyms=False, noun="prompt", asked=2)
NETWORK = replace(named(nn.Identity(), 3), labels=CONTRASTED)
SCORES_OF = torch.tensor([1.0, 2.0, 5.0])


def test_what_only_competes_is_never_explained() -> None:
    for words, wanted in (("predicted", [1]), ("top:2", [1, 0]), ("all", [0, 1]), ("a cat", [1]), ("0", [0])):
        assert list(resolve([words], NETWORK)(PICTURE, SCORES_OF)) == wanted, words
    # Its share of the softmax is taken off all the same: 0.017 and 0.047.
    assert list(resolve(["all>0.02"], NETWORK)(PICTURE, SCORES_OF)) == [1]
    for word, message in (("a wall", "no prompt 'a wall'"), ("2", "no prompt 2"), ("top:3", "not a number of prompts")):
        with pytest.raises(RequestError, match=message):
            resolve([word], NETWORK)
    assert is_multi_target("all")


def test_the_predicted_one_is_the_best_of_those_that_can_be_explained() -> None:
    module = of_prompts(torch.eye(3, dtype=torch.float64))
    network = named(module, 3, cosine=(10.0, 0.0))
    network = camcli.Network(**{**vars(network), "labels": CONTRASTED})
    images = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    images[:, 0], images[:, 1], images[:, 2] = 1, 2, 3
    images[0, :, 0, 0] = 0.5
    [[one]] = Explainer(network, layers=["visual.layer"], layout="nchw")(images)
    assert one.label == "a cat"


def test_every_class_in_order_without_those_that_are_not_there() -> None:
    assert list(resolve(["all"], NETWORK)(PICTURE, mask_competing(SCORES_OF, [1, 2]))) == [1]
    plain = replace(named(nn.Identity(), 2), activation="none")
    assert list(resolve(["all"], plain)(PICTURE, torch.tensor([3.0, 4.0]))) == [0, 1]


# ---- scores, by hand


class Mean(nn.Module):
    """A layer that hands everything on, and the mean of each of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean((2, 3))


def of_prompts(vectors: Tensor, scale: float = 10.0, bias: float = 0.0) -> ZeroShotClassifier:
    module = ZeroShotClassifier(Mean(), F.normalize(vectors, dim=1), torch.tensor(scale), torch.tensor(bias))
    return module.double().eval()


def of_three(scale: float = 10.0, bias: float = 0.0, **more: Any) -> camcli.Network:
    """Along red; along green; along both, and a prompt for contrast along blue."""
    vectors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    network = named(of_prompts(vectors, scale, bias), 4, cosine=(scale, bias), **more)
    labels = Labels(("red", "green", "yellow", "blue"), synonyms=False, noun="prompt", asked=3)
    return camcli.Network(**{**vars(network), "labels": labels})


def test_by_hand_scores_are_scaled_cosines() -> None:
    # The mean of red is 3, of green 4: cosines 0.6, 0.8, 7 / (5 sqrt 2) and 0.
    image = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    image[0, :2, 0, 0] = torch.tensor([3.0, 4.0])
    found = of_three(10.0, -2.0).module(image)[0]
    assert found.tolist() == pytest.approx([4, 6, 10 * 7 / (5 * math.sqrt(2)) - 2, -2])


@pytest.fixture
def images() -> Tensor:
    return pictures(3, 4, seed=3).abs()


def answers(network: camcli.Network, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network.module(images)


def explained(
    network: camcli.Network, images: Tensor, index: int, among: tuple[int, ...] = (), **options: Any
) -> list[camcli.Explanation]:
    explainer = Explainer(network, layers=["visual.layer"], layout="nchw", **options)
    found = explainer.results(images, lambda row, scores: [index], competing=lambda row: among)
    return [one for [one] in found]


def gradcam_of(network: camcli.Network, images: Tensor, derivative: Tensor) -> Tensor:
    """Grad-CAM of a number whose derivative by the scores is given, with the cosine's gradient in closed form."""
    features = images.mean((2, 3))
    lengths = features.norm(dim=1, keepdim=True)
    unit, prompts = features / lengths, network.module.prompts
    cosines = unit @ prompts.T
    by_features = (derivative @ prompts - (derivative * cosines).sum(1, keepdim=True) * unit) / lengths
    weights = float(network.module.scale) * by_features / images[0, 0].numel()
    return (weights[:, :, None, None] * images).sum(1)


def agree(ones: list[camcli.Explanation], maps: Tensor, scores: Tensor) -> None:
    for one, map, score in zip(ones, maps, scores, strict=True):
        np.testing.assert_allclose(one.map, map.numpy(), rtol=1e-5, atol=1e-6 * float(map.abs().max()))
        assert one.score == pytest.approx(float(score))


def test_the_cosine_alone_is_the_score_without_scale_and_bias(images: Tensor) -> None:
    network = of_three(10.0, -2.0)
    one_hot = F.one_hot(torch.tensor([1, 1, 1]), 4).double()
    cosines = (answers(network, images)[:, 1] + 2) / 10
    agree(explained(network, images, 1, score="similarity"), gradcam_of(network, images, one_hot) / 10, cosines)
    agree(explained(network, images, 1), gradcam_of(network, images, one_hot), 10 * cosines - 2)


@pytest.mark.parametrize("among", [(), (0, 1), (1, 3), (3, 2, 1)])
def test_a_probability_is_the_softmax_over_those_that_compete(images: Tensor, among: tuple[int, ...]) -> None:
    network = of_three()
    hidden = torch.stack([mask_competing(row, among) for row in answers(network, images)])
    sure = hidden.softmax(1)
    one_hot = F.one_hot(torch.tensor([1, 1, 1]), 4).double()
    maps = gradcam_of(network, images, sure[:, [1]] * (one_hot - sure))
    ones = explained(network, images, 1, among, score="probability")
    agree(ones, maps, sure[:, 1])
    assert [one.probability for one in ones] == pytest.approx(sure[:, 1].tolist())
    agree(
        explained(network, images, 1, among, score="logprob"),
        gradcam_of(network, images, one_hot - sure),
        hidden.log_softmax(1)[:, 1],
    )


def test_a_rival_is_one_of_those_that_compete(images: Tensor) -> None:
    network = of_three()
    scores = answers(network, images)
    contrast = torch.tensor([[0.0, 1, 0, -1]] * 3).double()
    ones = explained(network, images, 1, (1, 3), score="margin")
    agree(ones, gradcam_of(network, images, contrast), scores[:, 1] - scores[:, 3])
    assert {one.versus for one in ones} == {"blue"}
    # Named are two of which one is not there.
    assert Score(has_rivals=True, fixed_rivals=(0, 3)).find_rivals(mask_competing(scores[0], (1, 3)), 1) == (3,)
    ones = explained(network, images, 1, (1, 0, 2), score="margin", versus=[0, 3])
    agree(ones, gradcam_of(network, images, torch.tensor([[-1.0, 1, 0, 0]] * 3).double()), scores[:, 1] - scores[:, 0])


def test_what_does_not_compete_in_a_picture_is_not_explained_in_it(images: Tensor) -> None:
    [found] = Explainer(of_three(), layers=["visual.layer"], layout="nchw").results(
        images[:1], lambda row, scores: [2], competing=lambda row: [0]
    )
    assert isinstance(found[0], PictureError)
    assert "'yellow' is none of its own prompts" in found[0].message


@pytest.mark.parametrize("score", ["probability", "logprob", "margin"])
def test_methods_that_ask_again_ask_about_the_same_competition(images: Tensor, score: str) -> None:
    network = of_three()
    options = {"method": "occlusion", "options": {"window": 2, "stride": 2}, "score": score}
    found = Explainer(network, **options).results(images[:1], lambda row, scores: [1], competing=lambda row: (1, 3))
    # The same question where there is no other prompt.
    vectors = network.module.prompts[[1, 3]]
    other = named(of_prompts(vectors), 2, cosine=(10.0, 0.0))
    [[wanted]] = Explainer(other, **options)(images[:1], 0)
    np.testing.assert_allclose(found[0][0].map, wanted.map, rtol=1e-5, atol=1e-7)
    assert found[0][0].score == pytest.approx(wanted.score)
    # And over a flipped image, whose map comes back.
    [[turned]] = Explainer(network, layers=["visual.layer"], layout="nchw", score=score, flips=["flip"]).results(
        images[:1], lambda row, scores: [1], competing=lambda row: (1, 3)
    )
    [[same]] = Explainer(other, layers=["visual.layer"], layout="nchw", score=score, flips=["flip"])(images[:1], 0)
    np.testing.assert_allclose(turned.map, same.map, rtol=1e-5, atol=1e-7)


def test_what_is_explained_is_said_of_prompts() -> None:
    network = of_three(100.0, -10.5)
    assert (
        Explainer(network).describe_target()
        == "prompt logit: 100 times its cosine with the image minus 10.5, before softmax"
    )
    assert "cosine" in Explainer(network, score="similarity").describe_target()
    assert Explainer(network, score="probability").describe_target() == "prompt probability (softmax of the logits)"
    assert Explainer(network, score="margin", versus=[3]).describe_target() == "prompt margin over blue"
    assert Explainer(network, score="margin").describe_target().endswith("the strongest other prompt")


def test_networks_without_prompts_have_no_cosine() -> None:
    with pytest.raises(RequestError, match="compares images with no prompts") as caught:
        Explainer(named(Mean(), 3), score="similarity")
    assert "--text-tower" in caught.value.hint
    assert SCORES.find("similarity").is_cosine


# ---- templates


def test_by_hand_the_mean_of_unit_vectors_is_normalised_again() -> None:
    vectors = {"a dog.": [3.0, 4.0], "dogs": [0.0, 2.0], "a cat.": [1.0, 0.0], "cats": [5.0, 0.0]}
    seen: list[list[str]] = []

    def embed(texts: list[str]) -> Tensor:
        seen.append(texts)
        return torch.tensor([vectors[text] for text in texts])

    found = embed_prompts(embed, ["dog", "cat"], ["a {}.", "{}s"])
    # (0.6, 0.8) and (0, 1): their sum is (0.6, 1.8).
    assert found[0].tolist() == pytest.approx([0.6 / math.sqrt(3.6), 1.8 / math.sqrt(3.6)])
    assert found[1].tolist() == [1, 0]
    assert seen == [["a dog.", "dogs", "a cat.", "cats"]]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 0.0], [-1.0, 0.0]], "is zero"),
        ([[float("nan"), 1.0]] * 2, "NaN or infinite"),
        ([[0.0, 0.0]] * 2, "is zero"),
    ],
)
def test_an_embedding_without_a_direction_is_refused(vectors: list[list[float]], message: str) -> None:
    with pytest.raises(RequestError, match=f"the prompt 'dog' .*{message}"):
        embed_prompts(lambda texts: torch.tensor(vectors), ["dog"], ["{}", "a {}"])


def test_open_clips_own_templates_have_names() -> None:
    many, few = templates.expand_templates(["imagenet"]), templates.expand_templates(["imagenet-simple"])
    assert (len(many), len(few)) == (80, 7)
    assert "a bad photo of a {}." in many
    assert all(one.count("{}") == 1 for one in many)
    assert templates.expand_templates(["imagenet-simple", "{}!", "{}!"]) == (*few, "{}!")
    assert templates.expand_templates([]) == ("{}",)


# ---- what is read of a prompt


def test_what_a_prompt_is_too_long_for_is_said() -> None:
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    fits = "cat " * 75
    assert not [*tokenizer.write_notes(tokenize, [fits], [fits])]
    long = fits + "tail end"
    [note] = tokenizer.write_notes(tokenize, [long], [long])
    assert "is 77 tokens long and the model reads 75: it does not read 'tail end'" in note
    *first, more = tokenizer.write_notes(tokenize, [long], [f"{number} {long}" for number in range(5)])
    assert len(first) == 3
    assert more.startswith("2 more prompts are longer")


@pytest.mark.parametrize(
    ("prompt", "foreign"),
    [
        ("a red umbrella", False),
        ("ein Regenschirm in Zürich", False),
        ("красный зонт", True),
        ("赤い傘", True),
        ("مظلة حمراء", True),
        ("sign that says зонт", False),
        ("123 !?", False),
        ("☂", False),
    ],
)
def test_a_prompt_in_letters_that_are_not_latin_is_remarked_on(prompt: str, foreign: bool) -> None:
    notes = [*tokenizer.write_notes(open_clip.get_tokenizer("ViT-B-32"), [prompt], [prompt])]
    assert ["captions" in note for note in notes] == [True] * foreign


class Sentences:
    """A tokenizer as open_clip wraps those of others: words, and marks at the end."""

    context_length, tokenizer_mode = 6, ""

    def __init__(self, marks: int = 1) -> None:
        self.marks = marks
        self.tokenizer = self
        self.unk_token_id = 0

    def clean_fn(self, text: str) -> str:
        return open_clip.tokenizer.canonicalize_text(text)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        assert not add_special_tokens
        self.words = text.split()
        return {"input_ids": [number + 1 if word.isascii() else 0 for number, word in enumerate(self.words)]}

    def num_special_tokens_to_add(self) -> int:
        return self.marks

    def decode(self, tokens: list[int]) -> str:
        return " ".join(self.words[token - 1] for token in tokens)


def test_other_tokenizers_are_asked_too() -> None:
    tokenize = Sentences()
    assert not [*tokenizer.write_notes(tokenize, ["one two"], ["one two three four five"])]
    [note] = tokenizer.write_notes(tokenize, ["one"], ["One two, three four five: six seven!"])
    assert "is 7 tokens long and the model reads 5: it does not read 'six seven'" in note
    tokenize.tokenizer_mode = "clips"
    [note] = tokenizer.write_notes(tokenize, ["one"], ["one two three four"])
    assert "does not read 'four'" in note
    [note] = tokenizer.write_notes(tokenize, ["зонт красный one"], [])
    assert "'зонт красный one'" in note
    with pytest.raises(RequestError, match="leaves nothing of the prompt '!!'"):
        tokenizer.check_prompts(tokenize, ["a dog", "!!"], "open_clip:SigLIP")


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


def test_finer_cam_compares_with_what_is_for_contrast_too(images: Tensor) -> None:
    assert (
        "logits"
        in Explainer(of_three(), layers=["visual.layer"], layout="nchw", method="finer-cam")
        .bound_methods[0]
        .signal_names
    )
    [one, *_] = explained(of_three(), images, 0, method="finer-cam")
    assert np.isfinite(one.map).all()
    assert METHODS.find("finer-cam")


def test_many_texts_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_shot, "BATCH_SIZE", 2)
    sizes: list[int] = []

    def embed(texts: list[str]) -> Tensor:
        sizes.append(len(texts))
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    found = embed_prompts(embed, ["a", "bb", "ccc"], ["{}", "{}!", "the {}"])
    assert sizes == [2, 2, 2, 2, 1]
    wanted = F.normalize(F.normalize(torch.tensor([[2.0, 1], [3, 1], [6, 1]]), dim=1).sum(0), dim=0)
    torch.testing.assert_close(found[1], wanted)
