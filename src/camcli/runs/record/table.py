"""Table of a job's outcomes for other programs: Parquet or JSON lines."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from camcli.base import atomic
from camcli.base.errors import OutputError, RequestError
from camcli.images.address import show_path, to_url
from camcli.runs.record.outcome import Outcome
from camcli.runs.store.store import Store
from camcli.runs.worker.threads import batched

# That of tars, which tars.py writes, is among them.
SUFFIXES = (".parquet", ".jsonl", ".tar")
# Rows in a row group.
GROUP_ROWS = 20_000


def check_table(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Check that a table, or tars, can be written to a path, which ends in one of the suffixes.

    Raises:
        RequestError: it has another suffix, its folder is missing, or pyarrow is.
    """
    if path.suffix.lower() not in suffixes:
        raise RequestError(
            f"a table cannot be written to {show_path(path)!r}", f"end its name in {' or '.join(suffixes)}"
        )
    if to_url(path):
        Store(to_url(path.parent))
    elif not path.absolute().parent.is_dir():
        raise RequestError(f"there is no folder {str(path.parent)!r}", "create it first")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise RequestError(
            "Parquet files need pyarrow, which is not installed",
            "pip install 'camcli-vision[parquet]', or name a .jsonl file",
        )


def write_table(outcomes: Iterable[Outcome], path: Path) -> int:
    """Write outcomes to a file, or an object of a store, whole or not at all; return their number.

    In Parquet each field is a column; ``files``, ``sizes``, ``looks`` and ``columns`` are maps, ``concepts`` is JSON.

    Raises:
        OutputError: it cannot be written.
    """
    if url := to_url(path):
        folder, _, name = url.rpartition("/")
        with tempfile.TemporaryDirectory(prefix="camcli-") as made:
            written = Path(made, f"table{path.suffix}")
            rows = write_table(outcomes, written)
            Store(folder).put_file(name, written)
        return rows
    temporary = atomic.make_temporary_path(path.absolute().parent)
    write = _write_parquet if path.suffix.lower() == ".parquet" else _write_lines
    try:
        rows = write(outcomes, temporary)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def _write_lines(outcomes: Iterable[Outcome], path: Path) -> int:
    rows = 0
    with path.open("xb") as file:
        for outcome in outcomes:
            file.write(outcome.as_line())
            rows += 1
    return rows


def _write_parquet(outcomes: Iterable[Outcome], path: Path) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    schema = _make_schema()
    rows = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for some in batched(outcomes, GROUP_ROWS):
            writer.write_table(pa.Table.from_pylist([_make_row(one) for one in some], schema))
            rows += len(some)
    return rows


def _make_schema() -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    columns = {
        **dict.fromkeys(("source", "name", "stamp", "job", "run", "part"), text),
        "page": pa.int64(),
        "root": text,
        "files": pa.map_(text, text),
        "sizes": pa.map_(text, pa.int64()),
        "looks": pa.map_(text, text),
        "columns": pa.map_(text, text),
        "index": pa.int64(),
        "label": text,
        **dict.fromkeys(("score", "probability"), number),
        "predicted": pa.int64(),
        "predicted_label": text,
        "number": pa.int64(),
        "box": pa.list_(number),
        "true_box": pa.list_(number),
        **dict.fromkeys(("layer", "method", "concepts", "versus"), text),
        "channel": pa.int64(),
        **dict.fromkeys(("weight", "low", "high", "strongest"), number),
        "peak": pa.list_(number),
        "heat_box": pa.list_(pa.int64()),
        "placement": pa.list_(number),
        "image_size": pa.list_(pa.int64()),
        "seconds": number,
        "untrained": pa.bool_(),
        "notes": pa.list_(text),
        "error": text,
    }
    return pa.schema(list(columns.items()))


def _make_row(outcome: Outcome) -> dict[str, Any]:
    """Return the values of a row, in which text is valid UTF-8."""
    values = json.loads(outcome.as_line().decode("utf-8", "replace"))
    columns = values["columns"].items()
    values["columns"] = {name: one if one is None or isinstance(one, str) else json.dumps(one) for name, one in columns}
    maps = {name: list(values[name].items()) for name in ("files", "sizes", "looks", "columns")}
    concepts = json.dumps([asdict(one) for one in outcome.concepts]) if outcome.concepts else ""
    return {**values, **maps, "concepts": concepts}
