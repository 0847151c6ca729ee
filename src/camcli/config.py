"""Job files under the flags: defaults < file < environment < flags."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from camcli.errors import RequestError, did_you_mean


def read(path: Path, known: Iterable[str]) -> dict[str, Any]:
    """The options in a job file: TOML, or the ``run.json`` of an earlier run.

    Args:
        path: the file.
        known: the options there are.

    Raises:
        RequestError: the file cannot be read, or names an option that does not exist.
    """
    known = list(known)
    try:
        text = path.read_text(encoding="utf-8")
        options = json.loads(text).get("job") if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise RequestError(f"the job file {str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise RequestError(
            f"the job file {str(path)!r} cannot be read: {error}", "write TOML: model = 'resnet50'"
        ) from error
    if not isinstance(options, dict):
        raise RequestError(f"{str(path)!r} holds no job", "give a TOML job file, or the run.json of an earlier run")
    for name in options:
        if name not in known:
            raise RequestError(
                f"{path}: there is no option {name!r}", did_you_mean(name, known) or f"there are: {', '.join(known)}"
            )
    return options
