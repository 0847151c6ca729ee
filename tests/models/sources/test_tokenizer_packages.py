"""Tokenizers that cannot be loaded: what has to be installed for them, or why else."""

import importlib.util

import pytest

from camcli.models.sources import tokenizer

REAL = importlib.util.find_spec
# What transformers says of each; all of SentencePiece's files need both packages, of which it names one at a time.
SAID = "\nSiglipTokenizer requires the {} library but it was not found in your environment. Check out ...\n"


@pytest.mark.parametrize(
    ("said", "missing", "hint", "message"),
    [
        ("SentencePiece", ("sentencepiece", "google.protobuf"), "sentencepiece protobuf", "protobuf, which are not"),
        ("SentencePiece", ("sentencepiece",), "sentencepiece", "sentencepiece, which is not"),
        ("protobuf", ("google.protobuf",), "protobuf", "protobuf, which is not"),
        ("tiktoken", ("tiktoken",), "tiktoken", "tiktoken, which is not"),
        ("ftfy", ("ftfy",), "ftfy", "ftfy, which is not"),
    ],
)
def test_what_is_missing_is_named_with_the_command(said, missing, hint, message, monkeypatch):
    found = {name: object() for name in tokenizer.PACKAGES.values()}
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name in missing else found[name] if name in found else REAL(name, *more),
    )
    error = tokenizer.loading_error("open_clip:SigLIP", ImportError(SAID.format(said)), "save it")
    assert error.hint == f"pip install {hint}"
    assert error.message.startswith("the tokenizer of open_clip:SigLIP needs ")
    assert error.message.endswith(f"{message} installed")


def test_a_package_within_one_that_is_missing(monkeypatch):
    def find(name, *more):
        if name.startswith("google"):
            raise ModuleNotFoundError(name)
        return None if name == "sentencepiece" else REAL(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    error = tokenizer.loading_error("hf:./it", ImportError(SAID.format("protobuf")), "")
    assert error.hint == "pip install protobuf sentencepiece"


def test_other_reasons_are_said_in_the_librarys_words():
    error = tokenizer.loading_error("hf:./it", ValueError("\n\n  the vocabulary is damaged\nmore"), "save it")
    assert error.message == "the tokenizer of hf:./it cannot be loaded: ValueError: the vocabulary is damaged"
    assert error.hint == "save it"
    assert tokenizer.loading_error("hf:./it", OSError(""), "").message.endswith("OSError: ")
