"""Models of transformers that score pixels by masks of queries, and of depth: by hand, and as their processor."""

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is an extra (hf)")

from hf_models import VISION, save  # noqa: E402

from camcli import Explainer  # noqa: E402
from camcli.base.errors import RequestError  # noqa: E402
from camcli.models.load import load  # noqa: E402
from camcli.models.sources.hf_pixels import score_classes  # noqa: E402

pytestmark = pytest.mark.usefixtures("empty_caches")

SIDE = 128
CLASSES = {"id2label": {0: "wall", 1: "sky", 2: "cat"}, "label2id": {"wall": 0, "sky": 1, "cat": 2}}
WIDE = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2], "window_size": 4, "image_size": SIDE}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
TOKENS = {**VISION, "image_size": SIDE, "patch_size": 16, "num_hidden_layers": 4}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
DEPTHS = {"neck_hidden_sizes": [16, 16, 32, 32], "fusion_hidden_size": 16}
IMAGES = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def make(kind):
    """A small model with random weights."""
    torch.manual_seed(0)
    if kind == "Mask2FormerForUniversalSegmentation":
        sizes = {"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "encoder_feedforward_dim": 32}
        layers = {"num_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 2, "dim_feedforward": 32}
        body = transformers.SwinConfig(**WIDE, **STAGES)
        config = transformers.Mask2FormerConfig(backbone_config=body, num_queries=6, **sizes, **layers, **CLASSES)
    elif kind == "MaskFormerForInstanceSegmentation":
        decoder = transformers.DetrConfig(d_model=32, encoder_layers=1, decoder_layers=1, num_queries=6, **HEADS)
        sizes = {"fpn_feature_size": 32, "mask_feature_size": 32}
        body = transformers.MaskFormerSwinConfig(**WIDE, **STAGES)
        config = transformers.MaskFormerConfig(backbone_config=body, decoder_config=decoder, **sizes, **CLASSES)
    elif kind == "EomtForUniversalSegmentation":
        config = transformers.EomtConfig(**TOKENS, num_blocks=1, num_queries=6, num_upscale_blocks=1, **CLASSES)
    elif kind == "DPTForDepthEstimation":
        places = {"backbone_out_indices": [0, 1, 2, 3], "is_hybrid": False}
        config = transformers.DPTConfig(**TOKENS, **places, **DEPTHS)
    elif kind == "DepthAnythingForDepthEstimation":
        shape = {"out_indices": [1, 2, 3, 4], "reshape_hidden_states": False, "apply_layernorm": True}
        sizes = {"reassemble_hidden_size": 48, "patch_size": 16, "head_hidden_size": 16}
        body = transformers.Dinov2Config(**TOKENS, **shape)
        config = transformers.DepthAnythingConfig(backbone_config=body, **sizes, **DEPTHS)
    else:
        heads = {"num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 32}
        config = transformers.GLPNConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], **heads)
    return getattr(transformers, kind)(config).eval()


def write(folder, kind):
    return save(folder, make(kind), transformers.SegformerImageProcessor(size={"height": SIDE, "width": SIDE}))


def test_a_pixel_by_hand():
    """Two queries, two classes and none: s(0) = 0.5 * 0.5 + 0.25 * 0.8, s(1) = 0.25 * 0.5 + 0.25 * 0.8."""
    classes = torch.tensor([[[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]]).log()
    masks = torch.tensor([0.5, 0.8]).logit()[None, :, None, None]
    found = score_classes({"class_queries_logits": classes, "masks_queries_logits": masks})
    assert torch.allclose(found.exp().flatten(), torch.tensor([0.45, 0.325]))


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("Mask2FormerForUniversalSegmentation", "model.pixel_level_module.encoder.hidden_states_norms.stage4"),
        ("MaskFormerForInstanceSegmentation", "model.pixel_level_module.encoder.hidden_states_norms.3"),
        ("EomtForUniversalSegmentation", "layers.2"),
    ],
)
def test_classes_of_pixels_are_those_of_the_processor(tmp_path, kind, layer):
    network = load(f"hf:{write(tmp_path, kind)}")
    assert any("sum over the masks" in note for note in network.notes)
    explain = Explainer(network, method="hirescam")
    [[one], _] = explain(IMAGES)
    assert explain.layers == (layer,)
    assert np.ptp(one.map) > 0
    with torch.no_grad():
        theirs, ours = make(kind)(pixel_values=IMAGES), network.module(IMAGES)["logits"]
    processor = transformers.MaskFormerImageProcessor()
    for row, wanted in enumerate(processor.post_process_semantic_segmentation(theirs)):
        assert torch.equal(ours[row].argmax(0), wanted)
    probability = torch.softmax(ours[0], 0)[one.index][ours[0].argmax(0) == one.index].mean()
    assert one.probability == pytest.approx(float(probability), rel=1e-5)


def test_the_map_of_a_class_is_the_gradient_written_out(tmp_path):
    """By HiResCAM: with groups of one channel the pixel decoder's norms take every mean out of the gradient."""
    kind = "Mask2FormerForUniversalSegmentation"
    network = load(f"hf:{write(tmp_path, kind)}")
    with pytest.raises(RequestError, match="the gradient has no mean here"):
        Explainer(network)(IMAGES)
    explain = Explainer(network, method="hirescam")
    [[one], _] = explain(IMAGES)
    theirs, kept = make(kind), []
    theirs.get_submodule(explain.layers[0]).register_forward_hook(lambda _, given, output: kept.append(output))
    output = theirs(pixel_values=IMAGES)
    shares = output.class_queries_logits.softmax(2)[0, :, :3], output.masks_queries_logits.sigmoid()[0]
    scores = sum(classes[:, None, None] * mask for classes, mask in zip(*shares, strict=True))
    score = scores[one.index][scores.argmax(0) == one.index].log().sum()
    [grad] = torch.autograd.grad(score, kept)
    side = int(kept[0].shape[1] ** 0.5)
    act, grad = (part.detach()[0].T.reshape(-1, side, side) for part in (kept[0], grad))
    wanted = (grad * act).sum(0).numpy()
    assert np.allclose(one.map, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["DPT", "DepthAnything", "GLPN"])
def test_a_depth_is_summed_over_a_region(tmp_path, kind):
    network = load(f"hf:{write(tmp_path, f'{kind}ForDepthEstimation')}")
    assert network.labels.names == ("depth",)
    explain = Explainer(network)
    assert "the model's output, summed" in explain.describe_target()
    region = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    region[:, :, : SIDE // 2] = True
    [[left], _] = explain(IMAGES, region=region)
    with torch.no_grad():
        depth = make(f"{kind}ForDepthEstimation")(pixel_values=IMAGES).predicted_depth[0]
    assert left.score == pytest.approx(float(depth[:, : depth.shape[1] // 2].sum()), rel=1e-3)
    assert left.probability is None
    assert np.ptp(left.map) > 0


def test_what_wants_a_task_beside_the_image_is_refused(tmp_path):
    backbone = transformers.SwinConfig(**WIDE, **STAGES)
    config = transformers.OneFormerConfig(backbone_config=backbone, **CLASSES)
    config.architectures = ["OneFormerForUniversalSegmentation"]
    config.save_pretrained(tmp_path)
    transformers.SegformerImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="from the image alone"):
        load(f"hf:{tmp_path}", weights="random")
