"""Building of transformers' models: with their own weights, those of a file, or random ones."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from camcli.base.errors import RequestError
from camcli.models.sources.hf_files import WEIGHT_FILES, ModelFiles
from camcli.models.sources.hf_surgery import remove_head
from camcli.models.spec import ModelSpec
from camcli.models.weights import checkpoint, fit, skip_init
from camcli.models.weights.published import unreadable_error

# Way in which attention is computed: of the whole model, or of its parts by their name in the configuration.
Attention = str | dict[str, str]


def read_config(files: ModelFiles) -> Any:
    """Read a model's configuration as an object of transformers.

    Raises:
        RequestError: the installed version cannot read it.
    """
    try:
        return AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=files.may_run_code)
    except Exception as error:  # configurations of other versions raise all kinds of errors
        raise RequestError(
            f"the config.json of {files.name} cannot be read: {(str(error).splitlines() or [''])[0]}",
            "another version of transformers may read it: pip install -U transformers",
        ) from error


def build_module(files: ModelFiles, cls: Any, config: Any, spec: ModelSpec) -> tuple[Any, str, tuple[str, ...]]:
    """Build a model with the requested weights; return it, the origin of the weights, and notes.

    Its attention is computed by PyTorch's function for it, or written out, whatever the configuration asks for: both
    give the same numbers up to rounding, and neither hides the attention's weights.

    Raises:
        RequestError: the weights are unreadable, incomplete, or do not fit.
    """
    own = "sdpa" if getattr(cls, "_supports_sdpa", False) else "eager"
    notes = _note_attention(config, own)
    # A backbone may be of another kind.
    has_backbone = getattr(config, "backbone_config", None) is not None
    attention: Attention = {"": own, "backbone_config": "eager"} if has_backbone else own
    config.return_dict = True
    if spec.weights_file:
        content = checkpoint.read(spec.weights_file)
        module, about = skip_init.build_without_init(
            lambda: fit.load_weights(
                lambda classes: _build(cls, config, attention, classes),
                content,
                files.name,
                partial(_convert_names, cls, config),
                remove_head=partial(remove_head, name=files.name) if spec.headless else None,
            )
        )
        return module, f"the file {spec.weights_file}", (*notes, *about)
    if spec.is_random:
        return _build(cls, config, attention), f"random numbers from seed {spec.seed}", notes
    return _load_own(files, cls, config, attention), files.origin, notes


def _build(cls: Any, config: Any, attention: Attention, classes: int | None = None) -> nn.Module:
    config = copy.deepcopy(config)
    if classes is not None:
        config.num_labels = classes
    module: nn.Module = cls._from_config(config, attn_implementation=attention, dtype=torch.float32)
    return module.eval()


def _convert_names(cls: Any, config: Any, state: checkpoint.StateDict, module: nn.Module) -> checkpoint.StateDict:
    """Give tensors the names that the installed version has for them: files keep those of earlier versions.

    What is missing, unknown or of another shape stays so.
    """
    made, found = cls.from_pretrained(
        None, config=config, state_dict=dict(state), ignore_mismatched_sizes=True, output_loading_info=True
    )
    others = {str(key[0]) if isinstance(key, tuple) else str(key) for key in found["mismatched_keys"]}
    others |= {*map(str, found["missing_keys"]), *map(str, found["unexpected_keys"])}
    converted = {name: value for name, value in made.state_dict().items() if name not in others}
    dtypes = {name: value.dtype for name, value in module.state_dict().items()}
    return {
        **{name: value.to(dtypes.get(name, value.dtype)) for name, value in converted.items()},
        **{name: state[name] for name in others if name in state},
    }


def _load_own(files: ModelFiles, cls: Any, config: Any, attention: Attention, **more: Any) -> nn.Module:
    try:
        module, found = cls.from_pretrained(
            files.folder,
            config=config,
            local_files_only=True,
            weights_only=True,
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
            **more,
        )
    except Exception as error:  # damaged files raise all kinds of errors
        raise unreadable_error(
            files.name, files.folder, error, fetched=files.fetched, files=WEIGHT_FILES[::2]
        ) from error
    missing = sorted(found["missing_keys"])
    if missing and not more and all(name.startswith("pooler.") for name in missing):  # it was saved without one
        return _load_own(files, cls, config, attention, add_pooling_layer=False)
    if missing:
        raise RequestError(
            f"the weights of {files.name} lack {len(missing)} of the tensors of {cls.__name__}, which transformers "
            f"would draw at random: {checkpoint.shorten_names(missing)}",
            "is the model in config.json (architectures) the one that was saved? A backbone has no classifier: give "
            "weights with one by --weights FILE",
        )
    made: nn.Module = module
    return made.eval()


def _note_attention(config: Any, attention: str) -> tuple[str, ...]:
    asked = getattr(config, "_attn_implementation", None)
    if not asked or asked in ("sdpa", "eager", attention):
        return ()
    return (
        f"attention is computed by {attention}, not by {asked}, as its configuration asks, which hides its weights",
    )
