"""Tokenizers of open_clip and transformers: packages that they lack; empty, truncated or hardly known prompts."""

from __future__ import annotations

import importlib.util
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import open_clip

from camcli.base.errors import RequestError

# The mode in which open_clip adds start, end and class tokens itself, as for NLLB-CLIP, and the number of these.
CLIPS_MODE, CLIPS_SPECIAL_TOKENS = "clips", 3
# Packages that tokenizers need, with the module of each; those of SentencePiece's files (SigLIP) need the first two.
PACKAGES = {
    "sentencepiece": "sentencepiece",
    "protobuf": "google.protobuf",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "tiktoken": "tiktoken",
    "ftfy": "ftfy",
}
OF_SENTENCEPIECE = ("sentencepiece", "protobuf")
# Number of prompts that a note shows, and characters of each.
MAX_SHOWN, MAX_WIDTH = 3, 60


def loading_error(name: str, error: Exception, hint: str) -> RequestError:
    """Return the error for a tokenizer that cannot be loaded, with what has to be installed if a package is missing.

    Args:
        name: the model's name.
        error: what its library raised.
        hint: what helps if no package is missing.
    """
    lines = [line for line in map(str.strip, str(error).splitlines()) if line]
    named = [package for package in PACKAGES if package in str(error).lower()]
    if {*named} & {*OF_SENTENCEPIECE}:
        named += [package for package in OF_SENTENCEPIECE if package not in named]
    missing = [package for package in named if not _is_installed(PACKAGES[package])]
    if isinstance(error, ImportError) and missing:
        return RequestError(
            f"the tokenizer of {name} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed",
            f"pip install {' '.join(missing)}",
        )
    said = lines[0] if lines else ""
    return RequestError(f"the tokenizer of {name} cannot be loaded: {type(error).__name__}: {said}", hint)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def check_prompts(tokenize: Any, prompts: Sequence[str], name: str) -> None:
    """Check that every prompt has at least one token.

    Raises:
        RequestError: a prompt has none, such as punctuation with SigLIP's tokenizer.
    """
    for prompt in prompts:
        if not _encode(tokenize, prompt):
            raise RequestError(
                f"the tokenizer of {name} leaves nothing of the prompt {prompt!r}",
                "write words: the tokenizer may remove punctuation",
            )


def write_notes(tokenize: Any, prompts: Sequence[str], texts: Sequence[str]) -> Iterator[str]:
    """Write notes on prompts that are truncated or hardly known to the tokenizer.

    Args:
        tokenize: the tokenizer.
        prompts: the prompts as the user wrote them.
        texts: the prompts in their templates, as the model gets them.
    """
    limit = _max_tokens(tokenize)
    cut = [(text, tokens[limit:]) for text in texts if len(tokens := _encode(tokenize, text)) > limit]
    for text, rest in cut[:MAX_SHOWN]:
        yield (
            f"the prompt {_shorten(text)!r} is {limit + len(rest)} tokens long and the model reads {limit}: "
            f"it does not read {_shorten(_decode(tokenize, rest))!r}"
        )
    if len(cut) > MAX_SHOWN:
        more_cut = len(cut) - MAX_SHOWN
        yield f"{more_cut} more prompts are longer than the {limit} tokens that the model reads, and are cut"
    if foreign := [prompt for prompt in prompts if _is_foreign(tokenize, prompt)]:
        named = ", ".join(repr(_shorten(prompt)) for prompt in foreign[:MAX_SHOWN])
        more = f" and {len(foreign) - MAX_SHOWN} more" if len(foreign) > MAX_SHOWN else ""
        yield (
            f"the tokenizer has few tokens for the letters in {named}{more}: the model was probably trained on English "
            "captions, so such a score may mean little"
        )


def _encode(tokenize: Any, text: str) -> list[int]:
    """Encode a text without truncation, and without start and end tokens."""
    if isinstance(tokenize, open_clip.SimpleTokenizer):
        return list(tokenize.encode(text))
    clean = getattr(tokenize, "clean_fn", str)
    return list(tokenize.tokenizer(clean(text), add_special_tokens=False)["input_ids"])


def _max_tokens(tokenize: Any) -> int:
    """Return the number of tokens that the model reads, without start and end tokens."""
    if isinstance(tokenize, open_clip.SimpleTokenizer):
        return int(tokenize.context_length) - 2
    clips = getattr(tokenize, "tokenizer_mode", "") == CLIPS_MODE
    marks = CLIPS_SPECIAL_TOKENS if clips else tokenize.tokenizer.num_special_tokens_to_add()
    return int(tokenize.context_length) - int(marks)


def _decode(tokenize: Any, tokens: Sequence[int]) -> str:
    decoder = tokenize if isinstance(tokenize, open_clip.SimpleTokenizer) else tokenize.tokenizer
    return str(decoder.decode(tokens)).strip()


def _is_foreign(tokenize: Any, prompt: str) -> bool:
    """Return whether a prompt is mostly foreign to the tokenizer.

    For CLIP's byte pairs, which are English: more than half of the letters are not Latin, and split into many tokens.
    For other tokenizers: more than half of the tokens are unknown.
    """
    if isinstance(tokenize, open_clip.SimpleTokenizer) or getattr(tokenize, "is_english", False):
        letters = [one for one in prompt if one.isalpha()]
        return 2 * sum(not unicodedata.name(one, "").startswith("LATIN") for one in letters) > len(letters)
    tokens = _encode(tokenize, prompt)
    return 2 * tokens.count(tokenize.tokenizer.unk_token_id) > len(tokens)


def _shorten(text: str) -> str:
    return textwrap.shorten(text, MAX_WIDTH, placeholder=" …")
