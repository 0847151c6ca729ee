"""Small detectors of transformers, of every type that is read, written as folders by ``save_pretrained``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SIDE = 128
NAMES = ("cat", "dog", "fox")
STAGES = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "layer_type": "basic"}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
DETR = {
    **HEADS,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 12,
    "use_timm_backbone": False,
    "init_std": 0.2,
    "init_xavier_std": 3.0,
}
RT_DETR = {
    **HEADS,
    "encoder_hidden_dim": 32,
    "encoder_layers": 1,
    "encoder_ffn_dim": 48,
    "feat_strides": [8, 16, 32],
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_ffn_dim": 48,
    "decoder_in_channels": [32, 32, 32],
    "num_queries": 12,
    "num_denoising": 0,
}
HGNET = {
    "stem_channels": [3, 8, 16],
    "stage_in_channels": [16, 16, 32, 48],
    "stage_mid_channels": [8, 8, 16, 16],
    "stage_out_channels": [16, 32, 48, 64],
    "stage_num_blocks": [1] * 4,
    "stage_numb_of_layers": [2] * 4,
    "hidden_sizes": [16, 32, 48, 64],
}
YOLOS = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": [SIDE, SIDE],
    "patch_size": 16,
    "num_detection_tokens": 12,
    "initializer_range": 0.2,
}
VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "mlp_ratio": 2,
    "image_size": SIDE,
    "num_windows": 4,
    "window_block_indices": [0, 2],
    "out_indices": [2, 4],
}
DINO_VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "mlp_ratio": 2,
    "image_size": SIDE,
    "patch_size": 16,
    "num_windows": 2,
    "out_indices": [2, 4],
}
VIT_DETR = {
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_ffn_dim": 48,
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 4,
    "num_queries": 12,
    "group_detr": 2,
}
# By model type: the name of the configuration's class, what it is called with, its backbone's configuration and what
# this is called with, and its image processor.
FAMILIES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], str]] = {
    "conditional_detr": ("ConditionalDetr", {**DETR, "d_model": 32}, "ResNet", STAGES, "ConditionalDetr"),
    "d_fine": ("DFine", {**RT_DETR, "encoder_in_channels": [32, 48, 64]}, "HGNetV2", HGNET, "RTDetr"),
    "dab-detr": ("DabDetr", {**DETR, "hidden_size": 32}, "ResNet", STAGES, "ConditionalDetr"),
    "deformable_detr": (
        "DeformableDetr",
        {**DETR, "d_model": 32, "num_feature_levels": 3},
        *("ResNet", STAGES, "DeformableDetr"),
    ),
    "detr": ("Detr", {**DETR, "d_model": 32}, "ResNet", STAGES, "Detr"),
    "deimv2": ("Deimv2", {**RT_DETR, "encoder_in_channels": [32, 48, 64]}, "HGNetV2", HGNET, "RTDetr"),
    "lw_detr": ("LwDetr", {**VIT_DETR, "projector_scale_factors": [1.0]}, "LwDetrViT", VIT, "RTDetr"),
    "rf_detr": ("RfDetr", VIT_DETR, "RfDetrDinov2", DINO_VIT, "RfDetr"),
    "rt_detr": ("RTDetr", {**RT_DETR, "encoder_in_channels": [24, 32, 48]}, "RTDetrResNet", STAGES, "RTDetr"),
    "rt_detr_v2": ("RTDetrV2", {**RT_DETR, "encoder_in_channels": [24, 32, 48]}, "RTDetrResNet", STAGES, "RTDetr"),
    "table-transformer": ("TableTransformer", {**DETR, "d_model": 32}, "ResNet", STAGES, "Detr"),
    "yolos": ("Yolos", YOLOS, "", {}, "Yolos"),
}
# Types with an object-detection head that are not in the table, and why.
LEFT_OUT = {
    **dict.fromkeys(
        ("pp_doclayout_v2", "pp_doclayout_v3", "pp_doclayout_v4"),
        "refused: boxes are sorted by the order of reading, from outputs of their own",
    ),
    **dict.fromkeys(
        ("pp_ocrv5_mobile_det", "pp_ocrv5_server_det", "pp_ocrv6_medium_det", "pp_ocrv6_small_det"),
        "refused: it gives a map of text, and boxes are drawn around it afterwards",
    ),
}


def make_processor(model_type: str, **more: Any) -> Any:
    """The image processor: RT-DETR's stretches images to a square, DETR's leaves each its own shape."""
    import transformers

    name = FAMILIES[model_type][-1]
    sizes = (
        {"height": SIDE, "width": SIDE}
        if name in ("RTDetr", "RfDetr")
        else {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}
    )
    return getattr(transformers, f"{name}ImageProcessor")(**{"size": sizes, **more})


def make(model_type: str) -> Any:
    """A detector with random weights."""
    import transformers

    name, settings, backbone, sizes, _ = FAMILIES[model_type]
    named = {"id2label": dict(enumerate(NAMES)), "label2id": {one: index for index, one in enumerate(NAMES)}}
    if backbone:
        single = model_type in ("detr", "conditional_detr", "dab-detr", "table-transformer")
        stages = ["stage4"] if single else ["stage2", "stage3", "stage4"]
        levels = {} if "out_indices" in sizes else {"out_features": stages}
        made = getattr(transformers, f"{backbone}Config")(**sizes, **levels)
        settings = {**settings, "backbone_config": made}
    torch.manual_seed(0)
    module = getattr(transformers, f"{name}ForObjectDetection")(
        getattr(transformers, f"{name}Config")(**settings, **named)
    )
    with torch.no_grad():  # of the default spread all boxes and classes are the same
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.5)
    return module.eval()


def save(folder: Path, model_type: str, **more: Any) -> Path:
    """Write a detector and its image processor."""
    make(model_type).save_pretrained(folder)
    make_processor(model_type, **more).save_pretrained(folder)
    return folder
