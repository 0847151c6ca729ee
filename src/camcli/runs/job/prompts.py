"""Prompts of a job: those that are explained, those that only compete with them, and each image's own."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from camcli.base.errors import RequestError
from camcli.base.words import MAX_NAMES, shorten
from camcli.images.manifest import Manifest
from camcli.images.manifest_rows import JSON_SUFFIXES, PARQUET_SUFFIX, Column
from camcli.runs.job.job import Job
from camcli.targets.labels import normalize_name

PROMPT_COLUMN = Column(
    "prompt",
    "text",
    ("prompt", "prompts", "text", "texts", "caption", "captions", "description", "sentence"),
    "a red umbrella",
)
# Files of these types list each image's own prompts.
PER_PICTURE_SUFFIXES = (".csv", ".tsv", *JSON_SUFFIXES, PARQUET_SUFFIX)
# Width to which each prompt is shortened in a list.
PROMPT_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts that a job compares images with, numbered: those in ``explained`` first.

    Attributes:
        explained: prompts that can be explained, in the user's order.
        contrast: prompts that only compete with them.
        versus: numbers of the prompts that the user named for others to be compared with.
        per_picture: numbers of each image's own prompts, if a file lists them; None if all images have all prompts.
    """

    explained: tuple[str, ...]
    contrast: tuple[str, ...] = ()
    versus: tuple[int, ...] = ()
    per_picture: Manifest[int] | None = None

    def find_competing(self, path: Path) -> tuple[int, ...]:
        """Return the prompts that compete in an image: its own and those for contrast; empty if all prompts do.

        Raises:
            PictureError: the image has no prompts.
        """
        if self.per_picture is None:
            return ()
        numbers = self.per_picture.require(path)
        known = {normalize_name(self.explained[number]) for number in numbers}
        contrast = enumerate(self.contrast, start=len(self.explained))
        return (*numbers, *(number for number, prompt in contrast if normalize_name(prompt) not in known))

    def __str__(self) -> str:
        words = f"{len(self.explained)}, listed for each image" if self.per_picture else _format_prompts(self.explained)
        return f"{words}; for contrast {_format_prompts(self.contrast)}" if self.contrast else words

    @property
    def min_competing(self) -> int:
        """Minimum number of prompts that compete in an image."""
        if self.per_picture is None:
            return len(self.explained) + len(self.contrast)
        return min((len(self.find_competing(path)) for path in self.per_picture.paths()), default=0)


def _format_prompts(words: Sequence[str]) -> str:
    return shorten(
        [repr(textwrap.shorten(word, PROMPT_WIDTH, placeholder=" …")) for word in words[:MAX_NAMES]], len(words)
    )


def refuse_own_prompts(job: Job) -> None:
    """Check that a job's prompts are those of all images.

    Raises:
        RequestError: each image has its own.
    """
    if Path(job.texts).suffix.lower() in PER_PICTURE_SUFFIXES:
        raise RequestError(
            f"the prompts of all images are compared, and {job.texts} lists each image's own",
            "give a plain file with one prompt a line, or --text",
        )


def read_prompts(job: Job) -> Prompts | None:
    """Read the prompts that a job names; None if it names none.

    A word of ``--versus`` that is a prompt means that prompt; any other is a contrast prompt. Where images have
    prompts of their own, a prompt that only some have is a contrast prompt of the others.

    Raises:
        RequestError: a file of prompts cannot be read, or prompts for all images are given besides those of each.
    """
    if not job.prompted:
        return None
    per_picture: Manifest[int] | None = None
    words = job.text
    if Path(job.texts).suffix.lower() in PER_PICTURE_SUFFIXES:
        words, per_picture = _read_per_picture(job)
    elif job.texts:
        words += _read_lines(Path(job.texts))
    named: dict[str, str] = {}
    for word in job.versus:
        named.setdefault(normalize_name(word), word)
    known = set(map(normalize_name, words))
    contrast = tuple(word for key, word in named.items() if per_picture is not None or key not in known)
    versus = [number for number, prompt in enumerate(words) if normalize_name(prompt) in named]
    return Prompts(words, contrast, (*versus, *range(len(words), len(words) + len(contrast))), per_picture)


def _read_per_picture(job: Job) -> tuple[tuple[str, ...], Manifest[int]]:
    """Read each image's own prompts: return all of them, and their numbers by image."""
    file = Path(job.texts)
    if job.text:
        raise RequestError(
            f"both prompts for every image (--text {job.text[0]!r}) and a file of each image's own ({file}) were given",
            "leave --text out; give prompts that only compete with them by --versus",
        )
    if job.group:
        raise RequestError(
            f"{job.texts} lists each image's own prompts, and the images of a group are one sample (--group)",
            "give prompts for all of them: --text, or a plain file with one a line",
        )
    numbers: dict[str, int] = {}
    folders = [Path(given) for given in job.inputs if Path(given).is_dir()]
    manifest = Manifest(file, PROMPT_COLUMN, lambda prompt: numbers.setdefault(prompt, len(numbers)), folders)
    return tuple(numbers), manifest


def _read_lines(file: Path) -> tuple[str, ...]:
    """Read the prompts in a plain file, one a line; blank lines do not count."""
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
            "write one prompt a line; a .csv or .jsonl file lists each image's own",
        )
    return found
