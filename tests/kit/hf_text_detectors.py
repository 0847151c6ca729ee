"""Small detectors of transformers that look for what prompts name, written as folders with their tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hf_models import TOWER, make_tokenizer

SIDE = 128
SWIN = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4, "image_size": SIDE}
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
# Ids of the tokens that Grounding DINO knows, as in BERT's vocabulary; then some words.
BERT_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
WORDS = ("a", "photo", "of", "cat", "dog", "red", "umbrella", "remote", "control")
OWL = {
    "text_config": {**TOWER, "vocab_size": 12, "max_position_embeddings": 16},
    "vision_config": {**TOWER, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": 16},
    "projection_dim": 48,
}
GROUNDING_DINO = {
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 12,
    "max_text_len": 32,
    "init_std": 0.2,
}
OMDET = {
    **dict.fromkeys(("text_projection_in_dim", "text_projection_out_dim", "class_embed_dim"), 24),
    **dict.fromkeys(("encoder_hidden_dim", "decoder_hidden_dim"), 32),
    "task_encoder_hidden_dim": 48,
    "num_queries": 12,
    "vision_features_channels": [32, 32, 32],
    "encoder_in_channels": [32, 64, 128],
    "encoder_attention_heads": 4,
    "encoder_dim_feedforward": 48,
    "decoder_num_heads": 4,
    "decoder_num_layers": 2,
    "decoder_dim_feedforward": 48,
    # Its own backbone is one of timm, whose maps have their channels last.
    "apply_layernorm_after_vision_backbone": False,
    "image_size": SIDE,
    "init_std": 0.2,
}
# By model type: the name of the model's class, and of its processor.
FAMILIES = {
    "owlvit": ("OwlViT", "OwlViTProcessor"),
    "owlv2": ("Owlv2", "Owlv2Processor"),
    "grounding-dino": ("GroundingDino", "GroundingDinoProcessor"),
    "mm-grounding-dino": ("MMGroundingDino", "GroundingDinoProcessor"),
    "omdet-turbo": ("OmDetTurbo", "OmDetTurboProcessor"),
}


def make_bert_tokenizer() -> Any:
    """A tokenizer of a few words with the ids of BERT's separators."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = {**BERT_IDS, **{word: 200 + index for index, word in enumerate(WORDS)}}
    made = Tokenizer(models.WordLevel(names, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [(mark, names[mark]) for mark in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    marked = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **marked)


def make_processor(model_type: str) -> Any:
    """The processor of images and texts together."""
    import transformers

    square = {"height": SIDE, "width": SIDE}
    name, processor = FAMILIES[model_type]
    if name.startswith("Owl"):
        images, tokenizer = getattr(transformers, f"{name}ImageProcessor")(size=square), make_tokenizer()
        tokenizer.model_max_length = 16
    elif name == "OmDetTurbo":
        images, tokenizer = transformers.DetrImageProcessor(size=square, do_pad=False), make_tokenizer()
    else:
        edges = {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}
        images, tokenizer = transformers.GroundingDinoImageProcessor(size=edges), make_bert_tokenizer()
    return getattr(transformers, processor)(images, tokenizer)


def make(model_type: str) -> Any:
    """A detector with random weights, wide enough that boxes and prompts differ."""
    import transformers

    name = FAMILIES[model_type][0]
    settings: dict[str, Any] = OWL
    if not name.startswith("Owl"):
        swin = transformers.SwinConfig(**SWIN, out_features=["stage2", "stage3", "stage4"])
        settings = {**GROUNDING_DINO, "text_config": transformers.BertConfig(**BERT, vocab_size=1100)}
        if name == "OmDetTurbo":
            text = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
            settings = {**OMDET, "text_config": transformers.CLIPTextConfig(**text, vocab_size=12, projection_dim=24)}
        settings = {**settings, "backbone_config": swin}
    torch.manual_seed(0)
    module = getattr(transformers, f"{name}ForObjectDetection")(getattr(transformers, f"{name}Config")(**settings))
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.5 if not name.startswith("Owl") else 0.2 if "_head." in path else 8)
    return module.eval()


def save(folder: Path, model_type: str) -> Path:
    """Write a detector, its image processor and its tokenizer."""
    make(model_type).save_pretrained(folder)
    processor = make_processor(model_type)
    processor.image_processor.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    return folder
