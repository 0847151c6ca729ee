"""Detectors of transformers that look for what prompts name (OWL-ViT, OWLv2, Grounding DINO, OmDet-Turbo)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from camcli.base.errors import RequestError
from camcli.engine.hooks.watch import StopForward
from camcli.engine.network import Network
from camcli.models.adapters import zero_shot
from camcli.models.adapters.templates import expand_templates, fill_templates
from camcli.models.sources import hf_detection, tokenizer
from camcli.models.sources.hf_detection import Detected, Rule
from camcli.models.sources.hf_files import ModelFiles
from camcli.models.sources.hf_zero_shot import RANDOM_CLASSES, FolderTokenizer, load_tokenizer
from camcli.models.spec import ModelSpec

# Tokens to which the texts of OmDet-Turbo are padded, and the overlap from which it drops the weaker of two boxes.
OMDET_TOKENS, OMDET_OVERLAP = 77, 0.5
# The number of a separator's prompt: none.
NO_PROMPT = -1
TOKENS_NOTE = "the logit of a prompt is the greatest of its tokens'"


@dataclass(frozen=True, slots=True)
class Family:
    """One way of looking for what prompts name.

    Attributes:
        keep_prompts: embeds the prompts and keeps the result in the model, in place of its text tower; returns notes.
            The tokenizer is None for random embeddings.
        detect: from the model and its input to the logits of the prompts for each query, and the boxes.
        rule: how queries become boxes.
        threshold: the score from which on the library's processor keeps a box.
    """

    keep_prompts: Callable[[Any, FolderTokenizer | None, ModelSpec], tuple[str, ...]]
    detect: Callable[[Any, dict[str, Tensor]], Detected]
    rule: Rule
    threshold: float


class KeptText(nn.Module):
    """Stands for a text tower, and returns what that made of the prompts.

    Attributes:
        features: of each token, ``(1, tokens, d)``.
    """

    features: Tensor

    def __init__(self, features: Float[Tensor, "1 t d"]) -> None:
        super().__init__()
        self.register_buffer("features", features)

    def forward(self, ids: Int[Tensor, "n t"], *_: Any, **__: Any) -> BaseModelOutput:
        """Return the features for each image."""
        return BaseModelOutput(last_hidden_state=self.features.expand(len(ids), -1, -1))


def check_request(spec: ModelSpec, name: str) -> None:
    """Check that there are prompts to look for; an untrained model needs none.

    Raises:
        RequestError: there are none; one is empty or given twice; or a text tower is given beside.
    """
    if spec.text_tower:
        raise RequestError(f"{name} has a text tower of its own", "leave --text-tower out")
    if not spec.text and not spec.is_random:
        raise RequestError(
            f"{name} finds what prompts name, and none is given",
            "name what to look for with --text, once for each: --text 'a cat' --text 'a remote control'",
        )
    zero_shot.check_prompts(spec)


def make_detector(module: Any, files: ModelFiles, spec: ModelSpec) -> tuple[str, ...]:
    """Make a model return boxes of the prompts with the queries that they came from, in place; return notes.

    Raises:
        RequestError: the tokenizer is not there, or the model cannot read the prompts.
    """
    family = _find_family(module)
    tokenize = _load_tokenizer(module, files) if spec.text else None
    if tokenize:
        tokenizer.check_prompts(
            tokenize, [prompt for prompt in (*spec.text, *spec.contrast) if prompt.strip()], files.name
        )
    with torch.no_grad():
        notes = family.keep_prompts(module, tokenize, spec)
    rule = replace(family.rule, asked=len(spec.text) or RANDOM_CLASSES)
    hf_detection.replace_detection(module, rule, family.detect)
    if not spec.text:
        notes = (*notes, f"no --text was given: {RANDOM_CLASSES} random embeddings stand for prompts")
    if spec.min_score > family.threshold:
        notes = (
            *notes,
            f"boxes need a score of {spec.min_score:g}; transformers keeps those from {family.threshold:g} on: "
            f"--min-score {family.threshold:g}",
        )
    return notes


def find_layers(network: Network) -> Network:
    """Return a network that knows the layer to explain, and its feature pyramid if it has one.

    Of OWL-ViT's tower, whose every patch is a query, it is the input of the last attention: after that a box depends on
    its own patch alone.
    """
    norms = [name for name, _ in network.module.named_modules() if name.endswith(".layer_norm1")]
    if _find_family(network.module).detect is detect_by_patches:
        return replace(network, layer=norms[-1])
    return hf_detection.find_layers(network)


def _find_family(module: Any) -> Family:
    return FAMILIES[module.config.model_type]


def _load_tokenizer(module: Any, files: ModelFiles) -> FolderTokenizer:
    found, config = load_tokenizer(files), module.config
    vocabulary = int(config.text_config.vocab_size)
    if config.model_type in ("owlvit", "owlv2"):
        return FolderTokenizer(
            found, config.text_config.max_position_embeddings, "max_length", vocabulary, is_english=True
        )
    if config.model_type == "omdet-turbo":
        return FolderTokenizer(found, OMDET_TOKENS, "max_length", vocabulary, is_english=True)
    return FolderTokenizer(found, config.max_text_len, "longest", vocabulary)


def _fill_one_template(spec: ModelSpec, kind: str) -> list[str]:
    """Return the prompts in their template, for a model that cannot average over several.

    Raises:
        RequestError: there are several templates.
    """
    templates = expand_templates(spec.template)
    if len(templates) > 1:
        raise RequestError(f"{kind} reads prompts in one template, and {len(templates)} are given", "choose one")
    return [text for _, text in fill_templates((*spec.text, *spec.contrast), templates)]


# ---- OWL-ViT and OWLv2: every patch is a query, compared with the embedding of each prompt


def _keep_embeddings(model: Any, tokenize: FolderTokenizer | None, spec: ModelSpec) -> tuple[str, ...]:
    body = model.base_model
    notes: tuple[str, ...] = ()
    if tokenize:
        prompts, templates = (*spec.text, *spec.contrast), expand_templates(spec.template)
        embeddings = zero_shot.embed_prompts(
            lambda some: body.get_text_features(**tokenize(some)).pooler_output, prompts, templates
        )
        texts = [text for _, text in fill_templates(prompts, templates)]
        notes = tuple(tokenizer.write_notes(tokenize, prompts, texts))
    else:
        embeddings = nn.functional.normalize(torch.randn(RANDOM_CLASSES, body.text_projection.out_features), dim=-1)
    model.register_buffer("prompts", embeddings)
    del body.text_model, body.text_projection
    return notes


def detect_by_patches(model: Any, given: dict[str, Tensor]) -> Detected:
    """Return the logits of the prompts, ``(n, patches, prompts)``, and each patch's box (Minderer et al. 2022)."""
    images, native = given["pixel_values"], model.config.vision_config.image_size
    interpolate = tuple(images.shape[2:]) != (native, native)
    grid, _ = model.image_embedder(images, interpolate_pos_encoding=interpolate)
    patches = grid.flatten(1, 2)
    logits, _ = model.class_predictor(patches, model.prompts.expand(len(images), -1, -1))
    return logits, model.box_predictor(patches, grid, interpolate)


# ---- Grounding DINO: the prompts are one text, whose tokens each have a logit


def _keep_tokens(model: Any, tokenize: FolderTokenizer | None, spec: ModelSpec) -> tuple[str, ...]:
    special: list[int] = model.model.special_tokens.tolist()
    start, end, stop, _ = special
    if tokenize:
        texts = [text.strip().lower().removesuffix(".") for text in _fill_one_template(spec, "Grounding DINO")]
        [ids] = tokenize.tokenizer([". ".join(texts) + "."])["input_ids"]
        tokenize.check_known(ids)
    else:
        some = [token for token in range(1, model.config.text_config.vocab_size) if token not in special]
        texts = [""] * RANDOM_CLASSES
        ids = [start, *(token for one in some[:RANDOM_CLASSES] for token in (one, stop)), end]
    numbers, number = [], 0
    for before, token in zip([stop, *ids], ids, strict=False):
        number += token in special and before not in special
        numbers.append(NO_PROMPT if token in special else number)
    if number != len(texts):
        raise RequestError(
            f"Grounding DINO separates prompts by full stops and question marks, and finds {number} in {len(texts)}",
            "leave these out of the prompts: --text 'a cat' --text 'a dog'",
        )
    if len(ids) > model.config.max_text_len:
        raise RequestError(
            f"the prompts are {len(ids)} tokens together, and Grounding DINO reads {model.config.max_text_len}",
            "give fewer or shorter ones, and run the command again for the others",
        )
    model.register_buffer("prompt_ids", torch.tensor([ids]))
    model.register_buffer("prompt_numbers", torch.tensor(numbers))
    model.model.text_backbone = KeptText(_run_text_tower(model, model.prompt_ids))
    return (TOKENS_NOTE,)


def _run_text_tower(model: Any, ids: Int[Tensor, "1 t"]) -> Float[Tensor, "1 t d"]:
    """Run a model until its text tower has run, and return that one's output."""
    found = []

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(output.last_hidden_state)
        raise StopForward

    handle = model.model.text_backbone.register_forward_hook(hook)
    try:
        model(pixel_values=torch.zeros(1, 3, 64, 64), input_ids=ids)
    except StopForward:
        pass
    finally:
        handle.remove()
    features: Tensor = found[0]
    return features


def detect_by_tokens(model: Any, given: dict[str, Tensor]) -> Detected:
    """Return the logits of the prompts, ``(n, queries, prompts)``, and the boxes (Liu et al. 2024).

    A prompt's logit is the greatest of its tokens', as the library's post-processing takes the greatest of all tokens.
    """
    ids = model.prompt_ids.expand(len(given["pixel_values"]), -1)
    output = type(model).forward(model, **given, input_ids=ids)
    tokens, numbers = output.logits[..., : ids.shape[1]], model.prompt_numbers
    logits = [tokens[..., numbers == number].amax(-1) for number in range(int(numbers.max()) + 1)]
    return torch.stack(logits, dim=-1), output.pred_boxes


# ---- OmDet-Turbo: prompts, and a task that names them all


def _keep_language(model: Any, tokenize: FolderTokenizer | None, spec: ModelSpec) -> tuple[str, ...]:
    if tokenize:
        texts = _fill_one_template(spec, "OmDet-Turbo")
        classes, task = tokenize(texts), tokenize([f"Detect {', '.join(texts)}."])
        found = model.get_language_embedding(
            classes["input_ids"],
            classes["attention_mask"],
            task["input_ids"],
            task["attention_mask"],
            torch.tensor([len(texts)]),
        )
        notes = tuple(tokenizer.write_notes(tokenize, texts, texts))
    else:
        width = model.config.text_projection_out_dim
        found = (torch.randn(RANDOM_CLASSES, 1, width), torch.randn(1, 1, width), torch.ones(1, 1).bool())
        notes = ()
    for name, value in zip(("prompts", "task", "task_mask"), found, strict=True):
        model.register_buffer(name, value)
    # A bound method, since deepcopy rebinds it to the copy of the module.
    model.get_language_embedding = MethodType(_repeat_language, model)
    for name in ("language_backbone", "language_cache_class", "language_cache_prompt"):
        delattr(model, name)
    return notes


def _repeat_language(model: Any, images: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the kept embeddings, for each image."""
    count = len(images)
    return model.prompts.expand(-1, count, -1), model.task.expand(-1, count, -1), model.task_mask.expand(count, -1)


def detect_by_task(model: Any, given: dict[str, Tensor]) -> Detected:
    """Return the logits of the prompts, ``(n, queries, prompts)``, and the boxes (Zhao et al. 2024)."""
    images = given["pixel_values"]
    # The images again, in the place of the texts that _repeat_language is asked for.
    output = type(model).forward(model, images, images, None, None, None, None)
    return output.decoder_class_logits, output.decoder_coord_logits


PER_QUERY = Rule("sigmoid", per_query=True)
GROUNDING_DINO = Family(_keep_tokens, detect_by_tokens, PER_QUERY, 0.25)
FAMILIES = {
    "owlvit": Family(_keep_embeddings, detect_by_patches, PER_QUERY, 0.1),
    "owlv2": Family(_keep_embeddings, detect_by_patches, PER_QUERY, 0.1),
    "grounding-dino": GROUNDING_DINO,
    "mm-grounding-dino": GROUNDING_DINO,
    "omdet-turbo": Family(_keep_language, detect_by_task, Rule("sigmoid", overlap=OMDET_OVERLAP), 0.3),
}
