"""Targets that each image has for itself, given as a list beside the images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.choose import as_tuple, to_python
from camcli.runs.worker.resolve import make_own_rule
from camcli.runs.worker.worker import Worker
from camcli.targets import TargetRule

Entry = str | int | np.integer
TargetsInput = (
    str | os.PathLike[str] | int | np.integer | np.ndarray | Tensor | Iterable[Entry | Sequence[Entry]] | None
)


def names_file(targets: TargetsInput) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether the targets are a file of them.

    Raises:
        RequestError: they are a word, and no file of that name exists.
    """
    if not isinstance(targets, str | os.PathLike):
        return False
    if not Path(targets).exists():
        raise RequestError(
            f"targets= names a file with a line for each image, and there is no {os.fspath(targets)!r}",
            f"a class for all images is target={os.fspath(targets)!r}; for a class of each image give a list",
        )
    return True


class OwnTargets:
    """Targets beside the images: an entry for each, which is a class or several.

    Args:
        targets: the entries.
        images: what they belong to; a folder has one entry for all images in it.
        worker: the resolved job.

    Raises:
        RequestError: there are more or fewer entries than images, where both are known.
    """

    def __init__(self, targets: Any, images: Iterable[Any], worker: Worker) -> None:
        given = to_python(targets)
        if isinstance(given, Sequence) and isinstance(images, Sequence) and len(given) != len(images):
            raise RequestError(
                f"targets= has {len(given)} entries, and there {'is' if len(images) == 1 else 'are'} {len(images)} "
                f"image{'s' * (len(images) != 1)}",
                "give one for each; target= takes one or several classes to explain in every image",
            )
        self._given = given
        self._entries: Iterator[Any] = iter(given)
        self._worker = worker
        self._rules: dict[tuple[str, ...], TargetRule] = {}

    def restart(self) -> None:
        """Begin with the first image again."""
        self._entries = iter(self._given)

    def next_rule(self) -> TargetRule:
        """Return the rule of the next image.

        Raises:
            RequestError: there is no entry for it, or its entry is no class.
        """
        try:
            entry = next(self._entries)
        except StopIteration:
            raise RequestError("targets= has fewer entries than there are images", "give one for each") from None
        words = tuple(str(to_python(one)) for one in as_tuple(to_python(entry)))
        if words not in self._rules:
            self._rules[words] = self._make_rule(words)
        return self._rules[words]

    def _make_rule(self, words: tuple[str, ...]) -> TargetRule:
        worker = self._worker
        rules = [make_own_rule(worker.job, word, worker.network, worker.prompts) for word in words]
        return lambda path, scores: [index for rule in rules for index in rule(path, scores)]
