"""Prompts embedded: templates averaged, texts that are cut or in other letters noted, many texts in parts."""

import math

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.models.adapters import templates, zero_shot
from camcli.models.adapters.zero_shot import embed_prompts
from camcli.models.sources import tokenizer


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
