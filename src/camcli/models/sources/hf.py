"""Models of transformers (Hugging Face): from the hub, its cache, or a folder that ``save_pretrained`` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from camcli.base.errors import RequestError
from camcli.models.sources import hf_files

if TYPE_CHECKING:
    from camcli.engine.network import Network
    from camcli.models.spec import ModelSpec

INSTALL_HINT = "pip install 'camcli-vision[hf]'"


def names() -> list[str]:
    """List the repositories in the hub's cache that may be loaded."""
    return list(hf_files.list_cached())


def has(name: str) -> bool:
    """Return whether the name is that of a repository in the cache."""
    return name in names()


def cached(name: str) -> bool:
    """Return whether the model's weights are on this machine."""
    return hf_files.is_cached(name)


def load(spec: ModelSpec) -> Network:
    """Load a model of transformers: ``owner/name``, ``owner/name@revision`` or a folder.

    Raises:
        RequestError: transformers is not installed; there is no such model; it is of a kind that cannot be explained,
            or runs code of its own, which is not trusted; its files are unavailable or unreadable, its weights
            incomplete, or its preprocessing cannot be followed.
    """
    files = hf_files.find_files(
        spec.name, own_weights=not spec.weights, tokenizer=bool(spec.text), code=spec.trust_code
    )
    if files.is_timm:
        from camcli.models.sources import timm

        network = timm.load(replace(spec, name=f"local-dir:{files.folder}"))
        origin = network.origin if spec.weights else files.origin
        return replace(network, name=files.name, origin=origin)
    with _quiet_transformers():
        from camcli.models.sources.hf_networks import build_network

        return build_network(files, spec)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep what transformers says of its own accord, and its progress bars, from the terminal while the block runs.

    Raises:
        RequestError: transformers is not installed.
    """
    from camcli.models.lazy_imports import without_compiler

    try:
        with without_compiler():
            from transformers.utils import logging
    except ImportError as error:
        raise RequestError(
            f"models named hf: need transformers, which is not installed ({error})", INSTALL_HINT
        ) from None
    before, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if had_bar:
            logging.enable_progress_bar()
