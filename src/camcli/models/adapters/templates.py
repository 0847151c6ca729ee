"""Templates that prompts are put into."""

from __future__ import annotations

from collections.abc import Sequence

from camcli.models import PLACE, TEMPLATES


def templates(words: Sequence[str]) -> tuple[str, ...]:
    """The templates that words mean: each with one place for a prompt, each once; the bare prompt if there are none."""
    return tuple(dict.fromkeys(template for word in words for template in _templates(word))) or (PLACE,)


def filled(prompts: Sequence[str], patterns: Sequence[str]) -> list[tuple[int, str]]:
    """Every prompt in every template, with the prompt's number."""
    return [(number, pattern.replace(PLACE, prompt)) for number, prompt in enumerate(prompts) for pattern in patterns]


def _templates(word: str) -> Sequence[str]:
    if word not in TEMPLATES:
        return (word,)
    from open_clip import zero_shot_metadata as known

    named = dict(zip(TEMPLATES, (known.OPENAI_IMAGENET_TEMPLATES, known.SIMPLE_IMAGENET_TEMPLATES), strict=True))
    return [fill(PLACE) for fill in named[word]]
