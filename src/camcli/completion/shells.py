"""Completion of the words of a command line, quick enough for a key: without torch, typer and Rich.

The scripts that ``camcli --install-completion`` installs are typer's; they call camcli with the words so far in the
environment, and this answers them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from camcli.base import cache
from camcli.completion.candidates import Candidate, complete

VARIABLE = "_CAMCLI_COMPLETE"
# Bash ends words at these, and replaces only what follows the last of them.
SEPARATORS = re.compile(r"[:=]+")
# Seconds after which the background listing of models is thought to have failed.
LISTING_SECONDS = 300


def answer(instruction: str) -> bool:
    """Print the completions for the shell that asks; return whether it is one of those known here.

    Args:
        instruction: ``complete_bash``, ``complete_zsh``, ``complete_fish`` or ``complete_powershell``.
    """
    action, _, shell = instruction.partition("_")
    if action != "complete" or shell not in ("bash", "zsh", "fish", "powershell", "pwsh"):
        return False
    if shell == "bash":
        _print_lines(_answer_bash())
        return True
    words, word = _split(os.environ.get("_TYPER_COMPLETE_ARGS", ""))
    found = complete(words[1:], word, list_models_in_background)
    if shell == "zsh":
        _print_lines([_format_zsh(found)])
    elif shell == "fish":
        if os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
            sys.exit(0 if found else 1)  # 1: files are offered
        _print_lines([f"{one.value}\t{one.help}" if one.help else one.value for one in found])
    else:
        _print_lines([f"{one.value}:::{one.help or ' '}" for one in found])
    return True


def _print_lines(lines: Sequence[str]) -> None:
    """Print lines for the shell, with the same end on every system."""
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


def _answer_bash() -> list[str]:
    """Return the completions as bash inserts them."""
    given = os.environ.get("COMP_WORDS", "")
    raw = given.split("\n") if "\n" in given else given.split(" ")
    place = int(os.environ.get("COMP_CWORD") or len(raw) - 1)
    words = _join_at_separators(raw[: place + 1] if place < len(raw) else [*raw, ""])
    last = words[-1]
    found = complete([_unquote(word) for word in words[1:-1]], _unquote(last), list_models_in_background)
    if last[:1] in ("'", '"'):  # bash closes the quotes itself
        return [one.value for one in found]
    kept = max((match.end() for match in SEPARATORS.finditer(_unquote(last))), default=0)
    return [re.sub(r"([^\w@%+=:,./\[\]>-])", r"\\\1", one.value[kept:]) for one in found]


def _join_at_separators(raw: Sequence[str]) -> list[str]:
    """Return the words as they were typed, of which bash has made several at each ``:`` and ``=``."""
    words: list[str] = []
    joins = False
    for word in raw:
        separates = SEPARATORS.fullmatch(word) is not None
        if words and (separates or joins):
            words[-1] += word
        else:
            words.append(word)
        joins = separates
    return words


def _split(line: str) -> tuple[list[str], str]:
    """Split a line at its last word, which is empty after a space."""
    words = _tokenize(line)
    if not words or (line[-1:].isspace() and not line.endswith("\\ ")):
        return words, ""
    return words[:-1], words[-1]


def _unquote(word: str) -> str:
    return "".join(_tokenize(word)) if word else ""


def _tokenize(line: str) -> list[str]:
    """Split a line as a shell does; quotes may be open at its end."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str | None] = []
    try:
        words += iter(lexer)
    except ValueError:
        words.append(lexer.token)
    return [word for word in words if word is not None]


def _format_zsh(found: Sequence[Candidate]) -> str:
    """Return zsh code that offers the completions."""
    if not found:
        return "_files"
    words = (
        one.value.replace("\\", "\\\\").replace(":", "\\:") + (f":{one.help}" if one.help else "") for one in found
    )
    return f"local -a camcli_words; camcli_words=({' '.join(map(shlex.quote, words))}); _describe camcli camcli_words"


def list_models_in_background() -> None:
    """List the models, for the next completion, in a process that outlives this one; once at a time."""
    marker = cache.find_folder() / "listing"
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        if marker.exists() and abs(marker.stat().st_mtime - time.time()) < LISTING_SECONDS:
            return
        marker.touch()
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        subprocess.Popen(
            [sys.executable, "-m", "camcli", "models"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:  # a folder that cannot be written to: nothing could be kept
        return
