"""Detectors of transformers that look for what prompts name: boxes of the library's own, maps of one query's logit."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

transformers = pytest.importorskip("transformers", reason="transformers is an extra (hf)")

from hf_text_detectors import FAMILIES, SIDE, make, make_processor, save  # noqa: E402
from PIL import Image  # noqa: E402

from camcli import Explainer  # noqa: E402
from camcli.base.errors import RequestError  # noqa: E402
from camcli.cli import app  # noqa: E402
from camcli.models.load import load  # noqa: E402

pytestmark = pytest.mark.usefixtures("empty_caches")

PROMPTS = ("a cat", "a dog", "a remote control")
# The tokens of each prompt in "[CLS] a cat . a dog . a remote control . [SEP]".
TOKENS = ((1, 2), (4, 5), (7, 8, 9))


def noise(count=1, side=SIDE):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def ask(model_type, count=1):
    """What the library's processor makes of the prompts, and of images that are replaced by noise."""
    blank = Image.new("RGB", (SIDE, SIDE))
    return make_processor(model_type)(images=[blank] * count, text=[list(PROMPTS)] * count, return_tensors="pt")


def score(model_type, output):
    """The logits of the prompts for each query in the library's own output, and its boxes."""
    if model_type == "omdet-turbo":
        return output.decoder_class_logits, output.decoder_coord_logits
    if model_type.startswith("owl"):
        return output.logits, output.pred_boxes
    return torch.stack([output.logits[..., some].max(-1).values for some in TOKENS], dim=-1), output.pred_boxes


EVERYDAY = ("owlv2", "grounding-dino")
SOME = [one if one in EVERYDAY else pytest.param(one, marks=pytest.mark.slow) for one in FAMILIES]


@pytest.fixture(scope="module", params=SOME)
def family(request, tmp_path_factory):
    return request.param, save(tmp_path_factory.mktemp(request.param), request.param)


def test_every_type_that_the_library_asks_with_prompts_is_read():
    from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES

    assert {*FAMILIES} >= {*MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES}


def test_candidates_are_the_queries_of_the_model_and_its_text_tower_is_gone(family):
    model_type, folder = family
    network = load(f"hf:{folder}", text=PROMPTS, min_score=0.0)
    assert network.labels.names == PROMPTS
    given = ask(model_type, 2) | {"pixel_values": noise(2)}
    with torch.no_grad():
        logits, boxes = score(model_type, make(model_type)(**given))
        found = network.module(given["pixel_values"])
    corners = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1) * SIDE
    for one, wanted, place in zip(found, logits, corners, strict=True):
        assert torch.allclose(one["candidates"]["logits"], wanted, atol=1e-4)
        assert torch.allclose(one["candidates"]["boxes"], place, atol=1e-2)
    assert len(wanted.argmax(-1).unique()) > 1
    assert not any("text_model" in name or "language" in name for name, _ in network.module.named_modules())


@pytest.mark.parametrize("model_type", ["owlvit", "owlv2", "omdet-turbo"])
def test_boxes_are_those_of_the_processor(tmp_path, model_type):
    network = load(f"hf:{save(tmp_path, model_type)}", text=PROMPTS)
    given = ask(model_type) | {"pixel_values": noise()}
    with torch.no_grad():
        output = make(model_type)(**given)
        [ours] = network.module(noise())
    processor = make_processor(model_type)
    [theirs] = processor.post_process_grounded_object_detection(output, threshold=-1.0, target_sizes=[(SIDE, SIDE)])
    assert torch.equal(ours["labels"], theirs["labels"])
    assert torch.allclose(ours["scores"], theirs["scores"], atol=1e-4)
    assert torch.allclose(ours["boxes"].clamp(0, SIDE), theirs["boxes"].clamp(0, SIDE), atol=1e-2)


def test_grounding_dino_scores_a_phrase_by_its_best_token_as_its_processor_does(tmp_path):
    network = load(f"hf:{save(tmp_path, 'grounding-dino')}", text=PROMPTS, min_score=0.0)
    given = ask("grounding-dino") | {"pixel_values": noise()}
    with torch.no_grad():
        output = make("grounding-dino")(**given)
        [ours] = network.module(noise())
    processor = make_processor("grounding-dino")
    [theirs] = processor.post_process_grounded_object_detection(output, threshold=-1.0, target_sizes=[(SIDE, SIDE)])
    # The processor counts the separators too.
    in_prompts = torch.isin(output.logits[0].argmax(-1), torch.tensor([one for some in TOKENS for one in some]))
    assert in_prompts.sum() > 3
    assert torch.allclose(ours["scores"][in_prompts], theirs["scores"][in_prompts], atol=1e-5)
    assert (ours["scores"] <= theirs["scores"] + 1e-6).all()


def test_a_map_is_the_gradient_of_one_prompts_logit_for_one_query(family):
    model_type, folder = family
    network = load(f"hf:{folder}", text=PROMPTS, min_score=0.0)
    layer, kept = network.layer, []
    network.module.double()  # gradients of random weights are small next to the rounding of single precision
    theirs = make(model_type).double()
    # Twice, since PyTorch's gradient of a batch norm is wrong for one image (camcli.engine.hooks.batch_norms).
    images = noise().double().repeat(2, 1, 1, 1)
    theirs.get_submodule(layer).register_forward_hook(lambda _, given, output: kept.append(output))
    logits, _ = score(model_type, theirs(**(ask(model_type, 2) | {"pixel_values": images.clone().requires_grad_()})))
    with torch.no_grad():
        [ours] = network.module(images[:1])
    order = ours["scores"].sort(descending=True, stable=True).indices
    explainer = Explainer(network, layers=[layer], method="hirescam")
    for one in explainer(images[:1])[0][:3]:
        layout = explainer.layouts[layer]
        query = ours["candidates"]["kept"][order[one.number - 1]]
        assert one.score == pytest.approx(logits[0, query, one.index].item(), abs=1e-3)
        [grad] = torch.autograd.grad(logits[0, query, one.index], kept[-1], retain_graph=True)
        cells = (grad * kept[-1])[0].sum(-1 if layout.order == "tokens" else 0)[layout.prefix :]
        wanted = cells.reshape(layout.grid).detach().numpy()
        assert np.abs(wanted).max() > 1e-6
        assert np.allclose(one.map, wanted, atol=1e-3 * np.abs(wanted).max())


def test_the_default_of_owl_vit_is_the_input_of_the_last_attention(tmp_path):
    network = load(f"hf:{save(tmp_path, 'owlvit')}", text=PROMPTS, min_score=0.0)
    explainer = Explainer(network)
    maps = explainer(noise())[0]
    assert explainer.layers == ("owlvit.vision_model.encoder.layers.2.layer_norm1",)
    assert all((one.map > 0).sum() > 8 for one in maps[:5])
    # Behind it a box depends on its own patch alone, beside the class token.
    kept = []
    network.module.owlvit.vision_model.encoder.layers[2].register_forward_hook(lambda *given: kept.append(given[2]))
    [found] = network.module(noise().requires_grad_())
    [grad] = torch.autograd.grad(found["candidates"]["logits"][7, 0], kept)
    assert grad[0].any(1).nonzero().flatten().tolist() == [0, 8]


def test_another_size_interpolates_positions_and_moves_the_boxes_of_patches(tmp_path):
    network = load(f"hf:{save(tmp_path, 'owlv2')}", text=PROMPTS, size="160", min_score=0.0)
    given = ask("owlv2") | {"pixel_values": noise(side=160)}
    with torch.no_grad():
        output = make("owlv2")(**given, interpolate_pos_encoding=True)
        [ours] = network.module(noise(side=160))
    assert network.grid == (10, 10)
    assert torch.allclose(ours["candidates"]["logits"], output.logits[0], atol=1e-4)
    assert torch.allclose(
        ours["candidates"]["boxes"][:, 2:].sum(),
        (output.pred_boxes[0] * 160)[:, :2].sum() + (output.pred_boxes[0] * 80)[:, 2:].sum(),
        rtol=1e-4,
    )


def test_prompts_of_a_contrast_compete_and_are_not_found(family):
    _, folder = family
    alone = load(f"hf:{folder}", text=PROMPTS, min_score=0.0)
    network = load(f"hf:{folder}", text=PROMPTS[:1], contrast=PROMPTS[1:], min_score=0.0)
    with torch.no_grad():
        [found], [all_found] = network.module(noise()), alone.module(noise())
    assert torch.allclose(found["candidates"]["logits"], all_found["candidates"]["logits"], atol=1e-4)
    assert len(found["labels"]) == (all_found["labels"] == 0).sum() > 0
    assert not found["labels"].any()
    [one, *_] = Explainer(network, score="margin", versus=1)(noise())[0]
    query = found["candidates"]["kept"][found["scores"].argsort(descending=True, stable=True)[0]]
    logits = found["candidates"]["logits"][query]
    assert one.score == pytest.approx(float(logits[0] - logits[1]), abs=1e-4)


def test_templates_are_averaged_by_owl_and_only_one_is_read_by_the_others(family):
    model_type, folder = family
    several = ["a photo of {}", "{}"]
    if not model_type.startswith("owl"):
        with pytest.raises(RequestError, match="prompts in one template, and 2 are given"):
            load(f"hf:{folder}", text=PROMPTS, template=several)
        filled = load(f"hf:{folder}", text=["a photo of a cat", "a photo of a dog"])
        network = load(f"hf:{folder}", text=["a cat", "a dog"], template="a photo of {}")
        for name, value in filled.module.named_buffers():
            assert torch.equal(value, network.module.get_buffer(name))
        assert network.labels.names == ("a cat", "a dog")
        return
    units = [load(f"hf:{folder}", text=PROMPTS, template=one).module.prompts for one in several]
    wanted = torch.nn.functional.normalize(sum(units), dim=-1)
    assert torch.allclose(load(f"hf:{folder}", text=PROMPTS, template=several).module.prompts, wanted, atol=1e-6)


def test_untrained_it_needs_no_prompts(family):
    network = load(f"hf:{family[1]}", weights="random")
    assert len(network.labels) == 10
    assert any("10 random embeddings stand for prompts" in note for note in network.notes)
    with torch.no_grad():
        [found] = network.module(noise())
    assert found["candidates"]["logits"].shape[1] == 10


class TestRefusals:
    def refuse(self, match, folder, **options):
        with pytest.raises(RequestError, match=match) as raised:
            load(f"hf:{folder}", **options)
        return raised.value.hint

    def test_prompts_that_are_missing_or_given_twice(self, family):
        assert "--text 'a cat'" in self.refuse("finds what prompts name, and none is given", family[1])
        self.refuse("more than once", family[1], text=["a cat", "a cat"])

    def test_what_a_detector_with_a_text_tower_has_no_use_for(self, family):
        self.refuse("has a text tower of its own", family[1], text=["a cat"], text_tower="mine.py:embed")
        self.refuse("finds boxes", family[1], head="none", weights="random")

    def test_a_folder_without_its_tokenizer(self, tmp_path):
        for file in save(tmp_path, "owlvit").glob("*token*"):
            file.unlink()
        assert "tokenizer.save_pretrained" in self.refuse("has no tokenizer", tmp_path, text=PROMPTS)

    def test_texts_that_grounding_dino_reads_as_one(self, tmp_path):
        folder = save(tmp_path, "grounding-dino")
        assert load(f"hf:{folder}", text=["A cat.", "a dog"]).labels.names == ("A cat.", "a dog")
        self.refuse("by full stops and question marks, and finds 3 in 2", folder, text=["a cat. a dog", "a dog"])
        self.refuse("36 tokens together, and Grounding DINO reads 32", folder, text=["a cat", "a photo of " * 10])


def test_a_score_below_the_librarys_is_told(family):
    folder = family[1]
    assert any("transformers keeps those from" in note for note in load(f"hf:{folder}", text=PROMPTS).notes)
    assert not any("keeps those" in note for note in load(f"hf:{folder}", text=PROMPTS, min_score=0.1).notes)


WORDS = {
    "every box": [],
    "one box": ["--target", "box:3"],
    "of one prompt": ["--target", "box:1:a cat"],
    "without gradients": ["--target", "box:1", "--method", "rise", "-o", "samples=8"],
    "compared": ["--target", "top:1", "--versus", "a dog"],
    "true boxes": ["--boxes", "boxes.csv"],
}


@pytest.mark.parametrize(("words", "model_type"), [*((one, "owlv2") for one in WORDS), ("every box", "grounding-dino")])
def test_from_the_shell(words, model_type, sample_images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = sample_images / "chelsea.png"
    (tmp_path / "boxes.csv").write_text(f"picture,x0,y0,x1,y1,label\n{picture},0,0,451,300,a cat\n")
    asked = ["explain", "-m", f"hf:{save(tmp_path / 'it', model_type)}", "--min-score", "0", *WORDS[words]]
    asked += [word for prompt in PROMPTS for word in ("--text", prompt)]
    run = CliRunner().invoke(app, [*asked, "--out", "out", "--quiet", str(picture)])
    lines = [json.loads(line) for line in (tmp_path / "out" / "outcomes.jsonl").read_text().splitlines()]
    assert {*(line["label"] for line in lines)} <= {*PROMPTS, None}
    if words == "true boxes" and run.exit_code:  # of random weights there may be none
        assert "overlaps with the true box" in run.output
        return
    if words == "one box":
        assert [line["number"] for line in lines] == [3]
    if words == "of one prompt" and run.exit_code:
        assert "finds 0 boxes of class 0" in run.output
        return
    assert run.exit_code == 0, run.output
    assert list((tmp_path / "out").rglob("*.overlay.jpg"))


def test_maps_of_prompts_are_not_compared(tmp_path, sample_images):
    asked = ["prompts", "-m", f"hf:{save(tmp_path / 'it', 'owlv2')}", "--text", "a cat", "--text", "a dog"]
    run = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "out"), str(sample_images / "chelsea.png")])
    assert run.exit_code == 2
    assert "a prompt has several or none" in run.output
