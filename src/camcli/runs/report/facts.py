"""What a page says of the run: title, and everything that is needed to make the maps again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from camcli.runs.record import provenance
from camcli.targets import AUTO


def describe_run(record: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Describe a recorded run for the page: its title, a line below it, and its provenance in rows."""
    job, model = record.get("job") or {}, record.get("model") or {}
    name = str(model.get("name") or job.get("model") or "model").removeprefix("bundled:")
    methods = ", ".join(str(one.get("name")) for one in record.get("methods") or ())
    layers = ", ".join(map(str, record.get("layers") or ()))
    target = str(job.get("targets") or ", ".join(map(str, job.get("target") or ())))
    subtitle = [
        f"{methods}{f' at {layers}' if layers else ''}",
        f"target: {target}" if target not in ("", AUTO) else "",
    ]
    rows = [(title, str(text)) for title, text in _list_rows(record, job, model, out) if text]
    return {
        "title": name,
        "subtitle": " · ".join(filter(None, subtitle)),
        "date": str(record.get("finished") or record.get("began") or ""),
        "untrained": model.get("weights") == "random",
        "folder": out.resolve().name,
        "rows": rows,
        "text": "\n".join(f"{title}: {text}" for title, text in rows),
    }


def _list_rows(
    record: Mapping[str, Any], job: Mapping[str, Any], model: Mapping[str, Any], out: Path
) -> Iterator[tuple[str, Any]]:
    yield "model", model.get("name") or job.get("model")
    yield "weights", ", ".join(filter(None, [str(model.get("weights") or ""), str(model.get("origin") or "")]))
    yield "SHA-256 of the weights", model.get("sha256")
    yield "preprocessing", _describe_values(model.get("preprocessing") or {})
    for method in record.get("methods") or ():
        options = f" ({_describe_values(method['options'])})" if method.get("options") else ""
        yield "method", f"{method.get('name')}{options}: {method.get('paper')}"
    yield "layers", ", ".join(map(str, record.get("layers") or ()))
    yield "explained", record.get("explained")
    yield "target", job.get("targets") or ", ".join(map(str, job.get("target") or ()))
    yield "drawn with", _describe_values({key: job.get(key) for key in ("colormap", "alpha", "normalize", "outside")})
    yield "job", record.get("fingerprint")
    yield "versions", _describe_values({"camcli": record.get("camcli"), **(record.get("versions") or {})})
    yield "device", " ".join(filter(None, [str(record.get("device") or ""), str(record.get("precision") or "")]))
    yield "platform", record.get("platform")
    yield "notes", "; ".join(map(str, record.get("notes") or ()))
    yield "run", f"{record.get('began') or '?'} to {record.get('finished') or 'not finished'}"
    yield "again", write_again(out)


def write_again(out: Path) -> str:
    """Write the command that does what a folder's run did."""
    return f"camcli explain --config {shlex.quote(str(_name_folder(out) / provenance.FILE))}"


def _name_folder(out: Path) -> Path:
    """Return the folder from the current one if it lies in that; not the link ``latest``, which will lead elsewhere."""
    folder = out.resolve()
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _describe_values(values: Mapping[str, Any]) -> str:
    """Describe values in words: ``size 224 x 224, resize 256``."""
    return ", ".join(f"{name} {_describe(value)}" for name, value in values.items() if value not in (None, "", []))


def _describe(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " x ".join(map(_describe, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
