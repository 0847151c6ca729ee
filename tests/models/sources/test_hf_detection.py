"""Detectors of transformers: boxes as the processor gives them, each traced to the query that it came from."""

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is an extra (hf)")

from hf_detectors import FAMILIES, LEFT_OUT, NAMES, SIDE, make, make_processor, save  # noqa: E402
from PIL import Image  # noqa: E402

from camcli import Explainer  # noqa: E402
from camcli.base.errors import RequestError  # noqa: E402
from camcli.engine.layers.levels import find_pyramid_levels  # noqa: E402
from camcli.models.load import load  # noqa: E402
from camcli.models.sources.hf_detection import find_shown  # noqa: E402

pytestmark = pytest.mark.usefixtures("empty_caches")


def picture(width, height):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_every_type_of_detector_is_read_or_left_out_with_a_reason():
    from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

    assert {*FAMILIES, *LEFT_OUT} >= {*MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_boxes_are_those_of_the_processor(tmp_path, model_type):
    network = load(f"hf:{save(tmp_path, model_type)}", min_score=0.0)
    assert network.labels.names == NAMES
    values, _ = network.preprocess(picture(SIDE, SIDE))
    with torch.no_grad():
        [ours] = network.module(values[None])
        output = make(model_type)(pixel_values=values[None])
    processor = make_processor(model_type)
    [theirs] = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(SIDE, SIDE)])
    assert torch.equal(ours["labels"], theirs["labels"])
    assert torch.allclose(ours["scores"], theirs["scores"], atol=1e-5)
    assert torch.allclose(ours["boxes"], theirs["boxes"], atol=1e-2)
    logits, kept = ours["candidates"]["logits"], ours["candidates"]["kept"]
    probabilities = logits.softmax(-1) if network.activation == "softmax" else logits.sigmoid()
    assert torch.allclose(probabilities[kept, ours["labels"]], ours["scores"])


@pytest.mark.parametrize(
    ("model_type", "layer"),
    [("detr", "model.backbone.model.encoder.stages.3"), ("deformable_detr", "model.backbone.model.encoder.stages.3")],
)
def test_a_map_is_the_gradient_of_the_logit_of_one_query(tmp_path, model_type, layer):
    network = load(f"hf:{save(tmp_path, model_type)}", min_score=0.0)
    assert network.layer == layer
    network.module.double()  # gradients of random weights are small next to the rounding of single precision
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double()
    theirs, kept = make(model_type).double(), []
    theirs.get_submodule(layer).register_forward_hook(lambda _, given, output: kept.append(output))
    [logits] = theirs(pixel_values=images.clone().requires_grad_()).logits
    with torch.no_grad():
        [ours] = network.module(images)
    order = ours["scores"].sort(descending=True, stable=True).indices
    found = Explainer(network, layers=[layer], method="hirescam")(images)[0]
    for one in found[:3]:
        at = order[one.number - 1]
        query = ours["candidates"]["kept"][at]
        assert one.index == ours["labels"][at]
        assert one.score == pytest.approx(logits[query, one.index].item(), abs=1e-4)
        [grad] = torch.autograd.grad(logits[query, one.index], kept[-1], retain_graph=True)
        wanted = (grad * kept[-1])[0].sum(0).detach().numpy()
        assert np.abs(wanted).max() > 1e-5
        assert np.allclose(one.map, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("model_type", "pyramid"),
    [
        ("rt_detr", "model.encoder"),
        ("d_fine", "model.encoder"),
        ("deimv2", "model.encoder"),
        ("deformable_detr", "model.backbone.model"),
    ],
)
def test_the_levels_that_boxes_are_read_from_have_the_gradients_of_one_query(tmp_path, model_type, pyramid):
    network = load(f"hf:{save(tmp_path, model_type)}", min_score=0.0)
    assert network.pyramid == pyramid
    network.module.double()
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double().repeat(2, 1, 1, 1)
    theirs, kept = make(model_type).double(), []

    def split(_, given, output):
        """Make each level a point of its own, since one is computed from another."""
        [(name, levels)] = [(key, part) for key, part in output.items() if isinstance(part, list | tuple)]
        kept[:] = [level.detach().requires_grad_() for level in levels]
        return type(output)(**{name: list(kept)})

    theirs.get_submodule(pyramid).register_forward_hook(split)
    # Twice, since PyTorch's gradient of a batch norm is wrong for one image (camcli.engine.hooks.batch_norms).
    logits = theirs(pixel_values=images).logits[0]
    with torch.no_grad():
        [ours] = network.module(images[:1])
    order = ours["scores"].sort(descending=True, stable=True).indices
    levels = find_pyramid_levels(network.module, images[:1], network.read, pyramid)
    found = Explainer(network, layers=levels, method="hirescam")(images[:1])[0]
    whole = Explainer(network, method="hirescam")
    whole(images[:1])
    assert (whole.layers, whole.fuse, len(levels)) == (levels, "sum", 3)
    assert len(found) >= 3 * len(levels)
    for one in found[: 3 * len(levels)]:
        level = kept[levels.index(one.layer)]
        query = ours["candidates"]["kept"][order[one.number - 1]]
        assert one.score == pytest.approx(logits[query, one.index].item(), abs=1e-4)
        [grad] = torch.autograd.grad(logits[query, one.index], level, retain_graph=True)
        wanted = (grad * level)[0].sum(0).detach().numpy()
        assert np.allclose(one.map, wanted, atol=1e-4 * np.abs(wanted).max() + 1e-12)


def test_a_backbone_that_returns_its_stages_is_no_pyramid(tmp_path):
    network = load(f"hf:{save(tmp_path, 'detr')}", min_score=0.0)
    assert network.pyramid == ""


@pytest.mark.parametrize("model_type", ["lw_detr", "rf_detr"])
def test_transformers_in_windows_are_explained_where_their_stages_are_joined(tmp_path, model_type):
    network = load(f"hf:{save(tmp_path, model_type)}", min_score=0.0)
    explainer = Explainer(network)
    [one, *_] = explainer(torch.randn(1, 3, SIDE, SIDE))[0]
    assert (explainer.layers, one.map.shape) == (("model.backbone.projector",), (8, 8))


@pytest.mark.parametrize("size", ["", "96x128"])
def test_the_tokens_of_boxes_behind_the_patches_are_known(tmp_path, size):
    network = load(f"hf:{save(tmp_path, 'yolos')}", min_score=0.0, size=size)
    assert (network.prefix, network.suffix) == (1, 12)
    network.module.double()
    images = torch.randn(1, 3, *network.preprocess.size, generator=torch.Generator().manual_seed(1)).double()
    explainer = Explainer(network, method="hirescam")
    [one, *_] = explainer(images)[0]
    # The input of the last attention, as of a class token: after it no patch reaches a box.
    assert explainer.layers == ("vit.encoder.layer.2.layernorm_before",)
    layout = explainer.layouts[one.layer]
    assert (layout.prefix, layout.suffix, layout.grid) == (1, 12, network.grid)
    theirs, kept = make("yolos").double(), []
    theirs.get_submodule(one.layer).register_forward_hook(lambda _, given, output: kept.append(output))
    [logits] = theirs(pixel_values=images.clone().requires_grad_()).logits
    with torch.no_grad():
        [ours] = network.module(images)
    query = ours["candidates"]["kept"][ours["scores"].argmax()]
    [grad] = torch.autograd.grad(logits[query, one.index], kept)
    wanted = (grad * kept[0])[0, 1:-12].sum(-1).reshape(network.grid).detach().numpy()
    assert np.abs(wanted).max() > 1e-5
    assert np.allclose(one.map, wanted, atol=1e-4 * np.abs(wanted).max())
    named = Explainer(network, layers=[one.layer], layout=f"tokens:1:{network.grid[0]}x{network.grid[1]}")
    assert named(images)[0][0].map.shape == network.grid


@pytest.mark.parametrize("model_type", ["detr", "deformable_detr"])
def test_padding_is_masked_as_in_a_batch_of_several_shapes(tmp_path, model_type):
    network = load(f"hf:{save(tmp_path, model_type)}", min_score=0.0)
    assert any("the shorter side" in note for note in network.notes)
    wide = picture(SIDE, SIDE // 2)
    values, view = network.preprocess(wide)
    assert view.box == (0, 0, SIDE, SIDE)
    processor = make_processor(model_type, do_resize=False)
    batch = processor(images=[wide, picture(SIDE, SIDE)], return_tensors="pt")
    with torch.no_grad():
        [ours] = network.module(values[None])
        output = make(model_type)(pixel_values=batch["pixel_values"][:1], pixel_mask=batch["pixel_mask"][:1])
    [theirs] = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(SIDE // 2, SIDE)])
    assert torch.equal(ours["labels"], theirs["labels"])
    assert torch.allclose(ours["boxes"], theirs["boxes"], atol=1e-2)


def test_a_border_of_the_paddings_colour_is_of_the_image(tmp_path):
    network = load(f"hf:{save(tmp_path, 'detr')}")
    pixels = np.asarray(picture(SIDE, SIDE // 2)).copy()
    pixels[-9:] = pixels[:, -5:] = network.preprocess.fill
    values, _ = network.preprocess(Image.fromarray(pixels))
    shown = find_shown(values[None])[0]
    assert shown[: SIDE // 2].all()
    assert not shown[SIDE // 2 :].any()
    assert not values[:, SIDE // 2 :].any()


def test_padding_is_what_has_no_colour_at_the_lower_and_right_edge():
    images = torch.zeros(3, 3, 3, 4)
    images[0, 1, 0, 0] = images[0, 2, 1, 2] = 1
    images[1] = 1
    shown = find_shown(images)
    assert shown[0].tolist() == [[True] * 3 + [False]] * 2 + [[False] * 4]
    assert shown[1:].all()


def test_values_are_the_processors_but_for_the_size(tmp_path):
    network = load(f"hf:{save(tmp_path, 'detr')}")
    square = picture(99, 99)
    ours, _ = network.preprocess(square)
    [theirs] = make_processor("detr")(images=square, return_tensors="pt")["pixel_values"]
    assert torch.equal(ours, theirs)
    assert load(f"hf:{tmp_path}", size="160").preprocess.resize == (160, 160)


def test_its_head_is_not_removed_and_other_outputs_are_refused(tmp_path, monkeypatch):
    save(tmp_path, "detr")
    with pytest.raises(RequestError, match="finds boxes"):
        load(f"hf:{tmp_path}", head="none")

    def sort(self, outputs, threshold, target_sizes):
        return [{"scores": torch.ones(1), "labels": torch.ones(1).long(), "boxes": torch.ones(1, 4)}]

    monkeypatch.setattr(transformers.DetrImageProcessor, "post_process_object_detection", sort)
    with pytest.raises(RequestError, match="cannot be traced to its queries"):
        load(f"hf:{tmp_path}")
