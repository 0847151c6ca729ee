"""The prompts of a job: those that are explained, those that only compete with them, and which picture has which."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from camcli.base.errors import RequestError
from camcli.base.words import MOST_NAMES, several
from camcli.images.manifest import JSON_LINES, Kind, Listing
from camcli.runs.job.job import Job
from camcli.targets.labels import folded

PROMPTS = Kind(
    "prompt",
    "text",
    ("prompt", "prompts", "text", "texts", "caption", "captions", "description", "sentence"),
    "a red umbrella",
)
# Files of these types list each picture's own prompts.
PICTURE_BY_PICTURE = (".csv", ".tsv", *JSON_LINES)
# How much of each is shown in a list of them.
WIDTH = 60


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a job compares pictures with; the prompts are numbered, those in ``words`` first.

    Attributes:
        words: that can be explained, in the user's order.
        contrast: that only compete with them.
        versus: the numbers of those that the user named as what others are compared with.
        own: the numbers of a picture's own prompts, if a file says so; None if all are every picture's.
    """

    words: tuple[str, ...]
    contrast: tuple[str, ...] = ()
    versus: tuple[int, ...] = ()
    own: Listing[int] | None = None

    def among(self, path: Path) -> tuple[int, ...]:
        """The prompts that compete in a picture: its own and those for contrast; none where that is all of them.

        Raises:
            PictureError: it has none.
        """
        if self.own is None:
            return ()
        own = self.own.wanted(path)
        known = {folded(self.words[number]) for number in own}
        contrast = enumerate(self.contrast, start=len(self.words))
        return (*own, *(number for number, prompt in contrast if folded(prompt) not in known))

    def __str__(self) -> str:
        words = f"each picture's own of {len(self.words)}" if self.own else _several(self.words)
        return f"{words}; for contrast {_several(self.contrast)}" if self.contrast else words

    @property
    def fewest(self) -> int:
        """How many compete in a picture, at least."""
        if self.own is None:
            return len(self.words) + len(self.contrast)
        return min((len(self.among(path)) for path in self.own.pictures()), default=0)


def _several(words: Sequence[str]) -> str:
    return several([repr(textwrap.shorten(word, WIDTH, placeholder=" …")) for word in words[:MOST_NAMES]], len(words))


def prompts(job: Job) -> Prompts | None:
    """The prompts that a job names; None if it names none.

    A word of ``--versus`` that is a prompt means that prompt; any other is a contrast prompt. Where pictures have
    prompts of their own, a prompt that only some have is a contrast prompt of the others.

    Raises:
        RequestError: a file of prompts cannot be read, or prompts for all pictures are given beside those of each.
    """
    if not job.prompted:
        return None
    own: Listing[int] | None = None
    words = job.text
    if Path(job.texts).suffix.lower() in PICTURE_BY_PICTURE:
        words, own = _own(job)
    elif job.texts:
        words += _lines(Path(job.texts))
    named: dict[str, str] = {}
    for word in job.versus:
        named.setdefault(folded(word), word)
    there = set(map(folded, words))
    contrast = tuple(word for key, word in named.items() if own is not None or key not in there)
    versus = [number for number, prompt in enumerate(words) if folded(prompt) in named]
    return Prompts(words, contrast, (*versus, *range(len(words), len(words) + len(contrast))), own)


def _own(job: Job) -> tuple[tuple[str, ...], Listing[int]]:
    """Each picture's own prompts: all there are, and their numbers by picture."""
    file = Path(job.texts)
    if job.text:
        raise RequestError(
            f"both prompts for every picture (--text {job.text[0]!r}) and a file of each picture's own ({file}) were "
            "given",
            "leave --text out; what shall only compete with them is given by --versus",
        )
    if job.group:
        raise RequestError(
            f"{job.texts} lists each picture's own prompts, and the pictures of a group are one sample (--group)",
            "give prompts for all of them: --text, or a plain file with one a line",
        )
    numbers: dict[str, int] = {}
    folders = [Path(given) for given in job.inputs if Path(given).is_dir()]
    own = Listing(file, PROMPTS, lambda prompt: numbers.setdefault(prompt, len(numbers)), folders)
    return tuple(numbers), own


def _lines(file: Path) -> tuple[str, ...]:
    """The prompts in a plain file, one a line; blank lines do not count."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RequestError(f"the file of prompts {str(file)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"the file of prompts {str(file)!r} is not UTF-8 text", "write one prompt a line") from error
    found = tuple(line.strip() for line in text.split("\n") if line.strip())
    if not found:
        raise RequestError(
            f"the file of prompts {str(file)!r} is empty",
            "write one prompt a line; a .csv or .jsonl file lists each picture's own",
        )
    return found
