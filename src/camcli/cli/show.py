"""The ``camcli show`` command."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from camcli.base.errors import NothingFoundError
from camcli.cli.console import Console
from camcli.cli.exit import exit_codes
from camcli.cli.progress import describe_outcome
from camcli.cli.viewer import MAX_SHOWN, Viewer, find_shown
from camcli.runs.record.heads import has_result
from camcli.runs.record.lines import LineFile
from camcli.runs.record.outcome import Outcome

# Records of maps, and files that other commands make.
RECORD = "outcomes.jsonl"
SHEETS = ("channels.png", "channels.untrained.png", "prompts.png", "prompts.untrained.png")


def show(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATHS", help="Output folders, or image files", show_default="the folder of the last camcli explain"
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=0, help="Most images; 0 = all")] = MAX_SHOWN,
) -> None:
    """Show the overlays of an output folder, or image files, in the terminal: kitty, sixel (iTerm2), or half blocks."""
    console = Console()
    with exit_codes(console, "nothing was to be written"):
        found = (one for path in paths or [Path("camcli-out")] for one in _find_images(path))
        first = next(found, None)
        if first is None:
            raise NothingFoundError("there is no overlay there", "camcli explain --save overlay writes them")
        viewer = Viewer(console)
        for path, caption in (first, *islice(found, limit - 1 if limit else None)):
            viewer.show(path, caption)
        if next(found, None):
            console.say(f"these are the first {limit}; --limit 0 shows all")


def _find_images(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the images of a run's folder with their captions; or a file.

    Raises:
        NothingFoundError: there is no such file, or the folder is no run's.
    """
    if not path.exists():
        raise NothingFoundError(f"there is no {str(path)!r}", "name an output folder, or an image file")
    if path.is_file():
        yield path, ""
        return
    if not (path / RECORD).exists() and (path / "latest").is_dir():
        path = path / "latest"
    sheets = [path / name for name in SHEETS if (path / name).is_file()]
    if not sheets and not (path / RECORD).exists():
        raise NothingFoundError(f"{str(path)!r} is not the output folder of a run", "name one, or image files")
    yield from ((sheet, "") for sheet in sheets)
    lines = LineFile(path / RECORD, Outcome)
    for block in (block for _, block in lines.iter_blocks() if has_result(block)):
        for outcome in map(lines.parse, block):
            shown = find_shown(path, outcome)
            if shown is not None and not outcome.error:
                yield shown, describe_outcome(outcome)
