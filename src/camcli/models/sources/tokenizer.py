"""What the tokenizers of open_clip make of prompts, and what of a prompt the model does not read."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import open_clip

from camcli.base.errors import RequestError

# Where the tokenizer of NLLB-CLIP's kind puts a beginning, an end and a class token, whatever its own habits.
CLIPS, OF_CLIPS = "clips", 3
# How many prompts, and how much of each, a note shows.
SHOWN, WIDTH = 3, 60


def check(tokenize: Any, prompts: Sequence[str], name: str) -> None:
    """See that the tokenizer leaves something of every prompt.

    Raises:
        RequestError: of one it leaves nothing, as SigLIP's does of punctuation.
    """
    for prompt in prompts:
        if not _tokens(tokenize, prompt):
            raise RequestError(
                f"the tokenizer of {name} leaves nothing of the prompt {prompt!r}",
                "write words: punctuation may be taken off before the model reads",
            )


def notes(tokenize: Any, prompts: Sequence[str], texts: Sequence[str]) -> Iterator[str]:
    """What the user must know of how prompts are read.

    Args:
        tokenize: the tokenizer.
        prompts: as the user wrote them.
        texts: as the model is given them, in their templates.
    """
    room = _room(tokenize)
    cut = [(text, tokens[room:]) for text in texts if len(tokens := _tokens(tokenize, text)) > room]
    for text, rest in cut[:SHOWN]:
        yield (
            f"the prompt {_short(text)!r} is {room + len(rest)} tokens long and the model reads {room}: "
            f"it does not read {_short(_decoded(tokenize, rest))!r}"
        )
    if len(cut) > SHOWN:
        yield f"{len(cut) - SHOWN} more prompts are longer than the {room} tokens that the model reads, and are cut"
    if foreign := [prompt for prompt in prompts if _foreign(tokenize, prompt)]:
        named = ", ".join(repr(_short(prompt)) for prompt in foreign[:SHOWN])
        more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
        yield (
            f"the tokenizer knows little of the letters in {named}{more}: the model was probably trained on English "
            "captions, and then such a score means little"
        )


def _tokens(tokenize: Any, text: str) -> list[int]:
    """The tokens of a text, all of them, without those that mark its ends."""
    if isinstance(tokenize, open_clip.SimpleTokenizer):
        return list(tokenize.encode(text))
    clean = getattr(tokenize, "clean_fn", str)
    return list(tokenize.tokenizer(clean(text), add_special_tokens=False)["input_ids"])


def _room(tokenize: Any) -> int:
    """How many tokens the model reads, without those that mark the ends of the text."""
    if isinstance(tokenize, open_clip.SimpleTokenizer):
        return int(tokenize.context_length) - 2
    clips = getattr(tokenize, "tokenizer_mode", "") == CLIPS
    marks = OF_CLIPS if clips else tokenize.tokenizer.num_special_tokens_to_add()
    return int(tokenize.context_length) - int(marks)


def _decoded(tokenize: Any, tokens: Sequence[int]) -> str:
    own = tokenize if isinstance(tokenize, open_clip.SimpleTokenizer) else tokenize.tokenizer
    return str(own.decode(tokens)).strip()


def _foreign(tokenize: Any, prompt: str) -> bool:
    """Whether a tokenizer for English meets a prompt that it knows little of.

    CLIP's byte pairs are of English: more than half of the letters are not Latin, so that they fall to pieces. Of
    another tokenizer: it does not know more than half of the tokens.
    """
    if isinstance(tokenize, open_clip.SimpleTokenizer):
        letters = [one for one in prompt if one.isalpha()]
        return 2 * sum(not unicodedata.name(one, "").startswith("LATIN") for one in letters) > len(letters)
    tokens = _tokens(tokenize, prompt)
    return 2 * tokens.count(tokenize.tokenizer.unk_token_id) > len(tokens)


def _short(text: str) -> str:
    return textwrap.shorten(text, WIDTH, placeholder=" …")
