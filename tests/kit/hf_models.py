"""Small models of transformers, written as folders by ``save_pretrained``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

NAMES = ("cat", "dog", "fox")
SIDE = 64


def vit_config(**more: Any) -> Any:
    """The configuration of a small vision transformer."""
    from transformers import ViTConfig

    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96}
    named = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
    return ViTConfig(**{**sizes, **named, "image_size": SIDE, "patch_size": 8, **more})


def make_vit(seed: int = 0, **more: Any) -> Any:
    """A small vision transformer with random weights, large enough that its attention is uneven."""
    from transformers import ViTForImageClassification

    torch.manual_seed(seed)
    module = ViTForImageClassification(vit_config(**more)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return module


def save(folder: Path, module: Any, processor: Any = None, **how: Any) -> Path:
    """Write a model and its image processor; by default one that stretches images to the small ViT's size."""
    from transformers import ViTImageProcessor

    module.save_pretrained(folder, **how)
    (processor or ViTImageProcessor(size={"height": SIDE, "width": SIDE})).save_pretrained(folder)
    return folder


def save_vit(folder: Path, **more: Any) -> Path:
    """Write a small vision transformer."""
    return save(folder, make_vit(**more))


WORDS = ("a", "photo", "of", "cat", "dog", "red", "umbrella", ".")
TOWER = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
VISION = {**TOWER, "image_size": SIDE, "patch_size": 8}


def make_tokenizer(siglip: bool = False) -> Any:
    """A tokenizer of a few words, with a start token and an end token; SigLIP's texts have only an end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = {word: index for index, word in enumerate(("<pad>", "<unk>", *WORDS, "<s>", "</s>"))}
    made = Tokenizer(models.WordLevel(names, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    form = "$A </s>" if siglip else "<s> $A </s>"
    marks = [(mark, names[mark]) for mark in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing(single=form, special_tokens=marks)
    marked = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    inputs = ["input_ids"] if siglip else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=inputs, **marked)


def save_towers(folder: Path, kind: str = "CLIP") -> Path:
    """Write a small CLIP, SigLIP, or one of another kind, with its tokenizer and image processor."""
    import transformers

    tokenizer = make_tokenizer(siglip=kind == "Siglip")
    marks = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": 10}
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 12, **marks}
    if kind == "Align":
        text = {**text, "max_position_embeddings": 64}
        sizes = {"width_coefficient": 0.3, "depth_coefficient": 0.3, "image_size": SIDE, "hidden_dim": 96}
        settings = {"text_config": text, "vision_config": {**sizes, "initializer_range": 0.2}, "projection_dim": 96}
    elif kind == "Siglip":
        settings = {
            "text_config": {**text, "max_position_embeddings": 64, "projection_size": 48},
            "vision_config": VISION,
        }
    else:
        shared = {"projection_dim": 24}
        settings = {"text_config": {**text, **shared}, "vision_config": {**VISION, **shared}, **shared}
    torch.manual_seed(0)
    module = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**settings)).eval()
    tokenizer.save_pretrained(folder)
    return save(folder, module)
