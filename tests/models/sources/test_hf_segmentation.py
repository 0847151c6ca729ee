"""Segmentation models of transformers: a score summed over pixels, at the last layer of the backbone."""

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is an extra (hf)")

from hf_models import VISION, save  # noqa: E402
from place import broken_law  # noqa: E402

from camcli import Explainer  # noqa: E402
from camcli.base.errors import RequestError  # noqa: E402
from camcli.models.load import load  # noqa: E402

pytestmark = pytest.mark.usefixtures("empty_caches")

SIDE = 128
STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}
CLASSES = {"id2label": {0: "wall", 1: "sky", 2: "cat"}, "label2id": {"wall": 0, "sky": 1, "cat": 2}}
STAGE_NAMES = ["stage1", "stage2", "stage3", "stage4"]


def make(kind):
    """A small segmentation model."""
    torch.manual_seed(0)
    if kind == "Segformer":
        config = transformers.SegformerConfig(
            **STAGES, num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=32, **CLASSES
        )
    elif kind == "UperNet":
        body = transformers.ConvNextConfig(**STAGES, out_features=STAGE_NAMES)
        config = transformers.UperNetConfig(
            backbone_config=body, hidden_size=32, auxiliary_in_channels=32, auxiliary_channels=16, **CLASSES
        )
    else:
        config = transformers.DPTConfig(
            **{**VISION, "image_size": SIDE, "patch_size": 16, "num_hidden_layers": 4},
            backbone_out_indices=[0, 1, 2, 3],
            is_hybrid=False,
            neck_hidden_sizes=[16, 16, 32, 32],
            fusion_hidden_size=16,
            **CLASSES,
        )
    return getattr(transformers, f"{kind}ForSemanticSegmentation")(config).eval()


def write(folder, kind):
    return save(folder, make(kind), transformers.SegformerImageProcessor(size={"height": SIDE, "width": SIDE}))


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("Segformer", "segformer.stages.3"),
        ("UperNet", "backbone.hidden_states_norms.stage4"),
        ("DPT", "dpt.encoder.layer.3.layernorm_after"),
    ],
)
def test_the_last_layer_of_the_backbone_is_explained(tmp_path, kind, layer):
    network = load(f"hf:{write(tmp_path, kind)}")
    assert network.output_spec.task == "segment"
    assert network.labels.names == ("wall", "sky", "cat")
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    explain = Explainer(network)
    [[one]] = explain(images)
    assert explain.layers == (layer,)
    assert np.ptp(one.map) > 0
    assert not broken_law(network.module, layer, explain.layouts[layer], (SIDE, SIDE))


def test_the_map_is_the_gradient_of_the_sum_over_the_predicted_pixels(tmp_path):
    network = load(f"hf:{write(tmp_path, 'Segformer')}")
    theirs, images = make("Segformer"), torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    kept = []
    theirs.get_submodule("segformer.stages.3").register_forward_hook(lambda _, given, output: kept.append(output))
    [logits] = theirs(pixel_values=images).logits
    inside = logits.argmax(0)
    index = int(torch.stack([logits[at][inside == at].sum() for at in range(3) if (inside == at).any()]).argmax())
    index = [at for at in range(3) if (inside == at).any()][index]
    tensors = [one if isinstance(one, torch.Tensor) else one[0] for one in kept]
    [grad] = torch.autograd.grad(logits[index][inside == index].sum(), tensors)
    act = tensors[0].detach()[0]
    assert act.ndim == 3
    wanted = (grad[0].mean((1, 2))[:, None, None] * act).sum(0).numpy()
    [[one]] = Explainer(network)(images)
    assert one.index == index
    assert np.allclose(one.map, wanted, atol=1e-5 * np.abs(wanted).max())


def test_its_head_is_not_removed(tmp_path):
    with pytest.raises(RequestError, match="scores every pixel"):
        load(f"hf:{write(tmp_path, 'Segformer')}", head="none")
