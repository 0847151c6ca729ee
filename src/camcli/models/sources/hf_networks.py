"""Networks of transformers' models: classifiers, with preprocessing and class names of their own folder."""

from __future__ import annotations

from typing import Any

from transformers import AutoImageProcessor

from camcli.base.errors import RequestError
from camcli.engine.network import Network
from camcli.models.adapters import headless, resize
from camcli.models.sources.hf_config import (
    Kind,
    choose_activation,
    count_prefix_tokens,
    find_class,
    find_patch_grid,
    read_image_size,
    read_labels,
)
from camcli.models.sources.hf_files import ModelFiles
from camcli.models.sources.hf_preprocess import read_processor
from camcli.models.sources.hf_surgery import make_resizable, mend_gradients, remove_head
from camcli.models.sources.hf_weights import build_module, read_config
from camcli.models.spec import ModelSpec
from camcli.targets.readers.spec import DEFAULT_OUTPUT_SPEC


def build_network(files: ModelFiles, spec: ModelSpec) -> Network:
    """Make a network of a model's files.

    Raises:
        RequestError: as :func:`camcli.models.sources.hf.load`.
    """
    cls, kind = find_class(files)
    _check_request(files, kind, spec)
    config = read_config(files)
    preprocess, notes = read_processor(_load_processor(files), files.name)
    module, origin, about = build_module(files, cls, config, spec)
    native_size = read_image_size(config) or preprocess.size
    make_resizable(module, native_size)
    mend_gradients(module)
    if spec.size:
        resize.resize_module(module, native_size, spec.size, files.name)
        preprocess = preprocess.adapt(spec.size)
    prefix = count_prefix_tokens(module)
    grid = find_patch_grid(config, preprocess.size)
    if spec.headless:
        module = remove_head(module, files.name, spec.pool)
        path = "last_hidden_state" if spec.pool == "none" else ""
        labels, output_spec = headless.probe_channels(
            module, preprocess.size, files.name, spec.pool, prefix, grid, path=path
        )
    else:
        labels, output_spec = read_labels(module.config), DEFAULT_OUTPUT_SPEC
    return Network(
        name=files.name,
        module=module,
        preprocess=preprocess,
        labels=labels,
        weights=spec.weights_kind,
        origin=origin,
        activation="none" if spec.headless else choose_activation(module.config),
        prefix=prefix,
        grid=grid,
        notes=(*notes, *about),
        output_spec=output_spec,
        headless=spec.headless,
    )


def _check_request(files: ModelFiles, kind: Kind, spec: ModelSpec) -> None:
    """Check that a kind of model has what is requested of it."""
    if spec.text and kind != "prompts" and not spec.text_tower:
        raise RequestError(
            f"prompts are for models with a text encoder, and {files.name} ({files.architecture}) has none",
            "leave --text and --texts out; or add a text encoder: --text-tower path/to/file.py:function",
        )


def _load_processor(files: ModelFiles) -> Any:
    try:
        return AutoImageProcessor.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # settings of other versions and missing packages raise all kinds of errors
        raise RequestError(
            f"the image processor of {files.name} cannot be loaded: {(str(error).splitlines() or [''])[0]}",
            "another version of transformers may read it; or save it again: processor.save_pretrained(FOLDER)",
        ) from error
