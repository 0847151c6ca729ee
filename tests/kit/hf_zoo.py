"""The zoo of transformers: the smallest configuration of every architecture that classifies images, and those refused.

Nothing here imports the library, so that the table can be held to its families where it is not installed.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

BLOCKS = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96}
PATCHES = {**BLOCKS, "image_size": 128, "patch_size": 8}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 99}
TOWERS = {"vision_config": PATCHES, "text_config": TEXT}
STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
PYRAMID = {**STAGES, "num_attention_heads": [1, 1, 2, 2], "image_size": 128}
WINDOWS = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4, "image_size": 256}
WIDE = {"initializer_range": 0.2}  # weights of the default spread vanish in so narrow a network
# By model type: the name of the configuration's class, what it is called with, and the side of the input.
FAMILIES: dict[str, tuple[str, dict[str, Any], int]] = {
    "beit": ("Beit", {**PATCHES, "use_relative_position_bias": True, "use_mean_pooling": True}, 128),
    "bit": ("Bit", {"embedding_size": 16, "hidden_sizes": [32, 64, 96, 128], "depths": [1] * 4, "num_groups": 8}, 128),
    "clip": ("CLIP", TOWERS, 128),
    "convnext": ("ConvNext", STAGES, 128),
    "convnextv2": ("ConvNextV2", STAGES, 128),
    "cvt": ("Cvt", {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]}, 128),
    "data2vec-vision": ("Data2VecVision", {**PATCHES, "use_relative_position_bias": True}, 128),
    "deit": ("DeiT", PATCHES, 128),
    "dinov2": ("Dinov2", PATCHES, 128),
    "dinov2_with_registers": ("Dinov2WithRegisters", PATCHES, 128),
    "donut-swin": ("DonutSwin", WINDOWS, 256),
    "efficientnet": (
        "EfficientNet",
        {**WIDE, "width_coefficient": 0.3, "depth_coefficient": 0.3, "hidden_dim": 384, "image_size": 160},
        160,
    ),
    "focalnet": ("FocalNet", {"embed_dim": 16, "depths": [1, 1, 2, 1], "image_size": 128}, 128),
    "hgnet_v2": (
        "HGNetV2",
        {
            "stem_channels": [3, 8, 16],
            "stage_in_channels": [16, 16, 32, 48],
            "stage_mid_channels": [8, 8, 16, 16],
            "stage_out_channels": [16, 32, 48, 64],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [2, 2, 2, 2],
            "hidden_sizes": [16, 32, 48, 64],
        },
        128,
    ),
    "hiera": ("Hiera", {"embed_dim": 24, "depths": [1, 2, 2, 1], "image_size": [128, 128]}, 128),
    "ijepa": ("IJepa", PATCHES, 128),
    "levit": (
        "Levit",
        {
            "hidden_sizes": [32, 48, 64],
            "num_attention_heads": [2, 3, 4],
            "depths": [2, 2, 2],
            "key_dim": [8, 8, 8],
            "image_size": 192,
        },
        192,
    ),
    "metaclip_2": ("MetaClip2", TOWERS, 128),
    "mobilenet_v1": ("MobileNetV1", {"depth_multiplier": 0.25, "image_size": 128}, 128),
    "mobilenet_v2": ("MobileNetV2", {"depth_multiplier": 0.35, "image_size": 128}, 128),
    "mobilevit": (
        "MobileViT",
        {**WIDE, "hidden_sizes": [32, 40, 48], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64], "image_size": 128},
        128,
    ),
    "mobilevitv2": (
        "MobileViTV2",
        {**WIDE, "width_multiplier": 0.5, "n_attn_blocks": [1, 1, 1], "image_size": 256},
        256,
    ),
    "poolformer": ("PoolFormer", STAGES, 128),
    "pp_lcnet": ("PPLCNet", {"scale": 0.25, "class_expand": 64}, 192),
    "pvt": ("Pvt", PYRAMID, 128),
    "pvt_v2": ("PvtV2", PYRAMID, 128),
    "regnet": ("RegNet", {**STAGES, "embedding_size": 16, "groups_width": 8}, 128),
    "resnet": ("ResNet", {**STAGES, "embedding_size": 16}, 128),
    "segformer": ("Segformer", PYRAMID, 128),
    "siglip": ("Siglip", TOWERS, 128),
    "swiftformer": ("SwiftFormer", {"depths": [1, 1, 2, 1], "embed_dims": [16, 24, 32, 48], "image_size": 128}, 128),
    "swin": ("Swin", WINDOWS, 256),
    "swinv2": ("Swinv2", WINDOWS, 256),
    "textnet": ("TextNet", {"stem_out_channels": 16, "hidden_sizes": [16, 16, 24, 32, 48]}, 128),
    "vit": ("ViT", PATCHES, 128),
    "vit_msn": ("ViTMSN", PATCHES, 128),
}
# Types with an image-classification head that are not in the table, and why.
LEFT_OUT = {
    "dinat": "needs the package natten, and is not tried",
    "imagegpt": "refused: it reads an image as a text of colours, which have no gradient",
    "perceiver": "refused: it reads an image into latents, which have no place in it",
    "shieldgemma2": "refused: it answers a text about an image by the next word, and has no class scores of the image "
    "alone",
    "siglip2": "refused where its processor makes sequences of patches (NaFlex); checkpoints of one size are `siglip`",
    "timm_wrapper": "read by timm, with timm's preprocessing",
}


@cache
def write(model_type: str) -> Path:
    """A folder with an untrained model of this type, removed when the process ends."""
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    name, settings, side = FAMILIES[model_type]
    classes = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES[model_type]
    folder = Path(tempfile.mkdtemp(prefix=f"camcli-{model_type}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings, num_labels=5)
    getattr(transformers, classes if isinstance(classes, str) else classes[0])(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder
