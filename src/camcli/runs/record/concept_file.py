"""Concepts that methods found in several images, kept in the output folder."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from camcli.base.errors import RequestError
from camcli.runs.record.folder import Folder

if TYPE_CHECKING:
    from camcli.engine.maps.concepts import FittedConcepts

FILE = "concepts.npz"
JOB = "job"


def hash_concepts(concepts: FittedConcepts) -> str:
    """Return the SHA-256 of concepts."""
    hashed = hashlib.sha256()
    for (method, layer), tensor in sorted(concepts.items()):
        hashed.update(f"{method}@{layer} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.numpy(force=True).tobytes())
    return hashed.hexdigest()


def save(folder: Folder, concepts: FittedConcepts, job: str) -> None:
    """Write the concepts of a job's methods into its folder: an array for each method and layer.

    Raises:
        OSError: it cannot be written.
        OutputError: the folder is gone.
    """
    arrays: dict[str, Any] = {f"{method}@{layer}": one.numpy(force=True) for (method, layer), one in concepts.items()}
    content = io.BytesIO()
    np.savez(content, **{JOB: np.array(job), **arrays})
    folder.write_record(FILE, content.getvalue())


def load(folder: Path, jobs: Container[str]) -> FittedConcepts:
    """Load the concepts that an earlier run of one of these jobs wrote; empty if there are none.

    Raises:
        RequestError: the file cannot be read.
    """
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays[JOB]) not in jobs:
                return {}
            names = {name: name.partition("@") for name in arrays.files if name != JOB}
            return {(one[0], one[2]): torch.from_numpy(arrays[name]) for name, one in names.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RequestError(
            f"the concepts of an earlier run in {str(path)!r} cannot be read: {error}",
            "compute them and all images again with --overwrite",
        ) from error
