"""Prompt templates and their expansion."""

from __future__ import annotations

from collections.abc import Sequence

from camcli.models import PLACEHOLDER, TEMPLATE_SETS


def expand_templates(words: Sequence[str]) -> tuple[str, ...]:
    """Expand names of template sets, without duplicates; return the bare placeholder if there are no templates."""
    return tuple(dict.fromkeys(template for word in words for template in _expand(word))) or (PLACEHOLDER,)


def fill_templates(prompts: Sequence[str], templates: Sequence[str]) -> list[tuple[int, str]]:
    """Put every prompt into every template; return pairs of the prompt's index and the text."""
    return [
        (number, pattern.replace(PLACEHOLDER, prompt)) for number, prompt in enumerate(prompts) for pattern in templates
    ]


def _expand(word: str) -> Sequence[str]:
    if word not in TEMPLATE_SETS:
        return (word,)
    from open_clip import zero_shot_metadata as known

    named = dict(zip(TEMPLATE_SETS, (known.OPENAI_IMAGENET_TEMPLATES, known.SIMPLE_IMAGENET_TEMPLATES), strict=True))
    return [fill(PLACEHOLDER) for fill in named[word]]
