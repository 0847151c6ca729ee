"""Models that say where: torchvision's segmentation and detection models, and small ones from the shell."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from networks import pictures
from PIL import Image

from camcli import Explainer, Job, RequestError, load
from camcli.models.sources import torchvision as source
from camcli.runs.explain.run import Run
from camcli.targets.readers.torchvision_boxes import giving_candidates

SEGMENTATION = torchvision.models.list_models(module=torchvision.models.segmentation)
DETECTION = torchvision.models.list_models(module=torchvision.models.detection)
EVERYDAY = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn")
# Smaller than they are made for, so that all can be tried; SSD's anchors fit only their own size.
SIZES = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}


def some(names):
    return [name if name in EVERYDAY else pytest.param(name, marks=pytest.mark.slow) for name in names]


def by_hand(network, image, score):
    """Grad-CAM written out: the layer's channels weighted by the mean of their gradients (Selvaraju 2017, eq. 1, 2)."""
    kept = []
    handle = network.module.get_submodule(network.layer).register_forward_hook(lambda *given: kept.append(given[2]))
    try:
        number = score(network.module(image.clone().requires_grad_()))
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(number, kept)
    return float(number.detach()), (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].detach().numpy()


@pytest.mark.parametrize("name", some(SEGMENTATION))
def test_a_segmentation_is_explained_as_the_sum_over_the_predicted_region(name):
    network = load(f"torchvision:{name}", weights="random", seed=3)
    network.module.double()
    assert network.labels.names[:2] == ("__background__", "aeroplane")
    image = pictures(1, 96)
    with torch.no_grad():
        winners = network.module(image)["out"].argmax(1)[0]
    index = int(winners.flatten().mode().values)
    [[one]] = Explainer(network)(image, index)
    score, map = by_hand(network, image, lambda output: output["out"][0, index][winners == index].sum())
    assert one.layer == network.layer
    assert one.score == pytest.approx(score, rel=1e-6)
    assert map.any()
    assert np.abs(one.map - map).max() <= 1e-6 * np.abs(map).max()


def spread(module, given, said):
    """Spread the logits that a head gives: untrained, they may be the same everywhere, or of a softmax of exactly 1."""
    logits = said[0] if isinstance(said, tuple) else said["cls_logits"]
    logits = logits - logits.detach().mean(-2, keepdim=True)
    logits = logits / logits.detach().std()
    return (logits, said[1]) if isinstance(said, tuple) else dict(said) | {"cls_logits": logits}


def logit_behind(name, said, returned):
    """Of what a detector's head says, the logit whose score, written out, is the one returned."""
    if isinstance(said, tuple):  # Faster R-CNN and its kin: classes and corners of each proposal
        logits = said[0]
        scores = logits.softmax(1)
    else:
        logits = said["cls_logits"][0]
        scores = logits.softmax(1) if name.startswith("ssd") else logits.sigmoid()
    if name.startswith("fcos"):
        scores = (scores * said["bbox_ctrness"][0].sigmoid()).sqrt()
    distances = (scores - returned).detach().abs().flatten()
    assert distances.min() < 1e-12
    return logits.flatten()[distances.argmin()]


@pytest.mark.parametrize("name", some(DETECTION))
def test_a_box_is_explained_by_the_logit_that_made_its_score(name):
    network = load(f"torchvision:{name}", weights="random", seed=3, min_score=0.0)
    network.module.double()
    # Untrained, all boxes score alike, and there would be hundreds.
    getattr(network.module, "roi_heads", network.module).detections_per_img = 2
    head = network.module.roi_heads.box_predictor if hasattr(network.module, "roi_heads") else network.module.head
    head.register_forward_hook(spread)
    image = pictures(1, SIZES.get(name, 128))
    [found] = network.module(image)
    best = int(found["scores"].detach().sort(descending=True, stable=True).indices[0])
    explainer = Explainer(network, method="gradcam")
    one = next(one for one in explainer(image)[0] if one.number == 1)
    said = []
    handle = head.register_forward_hook(lambda *given: said.append(given[2]))
    score, map = by_hand(network, image, lambda output: logit_behind(name, said[-1], output[0]["scores"][best]))
    handle.remove()
    assert one.layer == network.layer
    assert one.score == pytest.approx(score, rel=1e-6)
    assert one.probability == pytest.approx(found["scores"][best].item(), rel=1e-6)
    assert one.index == int(found["labels"][best])
    assert one.box == pytest.approx(found["boxes"][best].tolist(), abs=1e-3)
    assert map.any()
    assert np.abs(one.map - map).max() <= 1e-6 * np.abs(map).max()


@pytest.mark.parametrize("name", some(["fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn"]))
def test_a_boxs_probability_is_what_torchvision_returns(name):
    network = load(f"torchvision:{name}", weights="random", seed=3, min_score=0.0)
    network.module.double()
    getattr(network.module, "roi_heads", network.module).detections_per_img = 2
    image = pictures(1, 128)
    best = int(network.module(image)[0]["scores"].detach().sort(descending=True, stable=True).indices[0])
    one = next(one for one in Explainer(network, method="gradcam", score="probability")(image)[0] if one.number == 1)
    returned, map = by_hand(network, image, lambda output: output[0]["scores"][best])
    assert one.score == one.probability == pytest.approx(returned, rel=1e-6)
    assert np.abs(one.map - map).max() <= 1e-6 * np.abs(map).max()


def test_candidates_are_in_pixels_of_the_input_and_the_detector_stays_as_it_was():
    """A user's own detector resizes images itself: its boxes and candidates are both taken back to the input."""
    module = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, box_score_thresh=0.0
    ).eval()
    before = dict(vars(module)), dict(vars(module.roi_heads)), dict(vars(module.transform))
    image = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), giving_candidates(module):
        found = module(image)
    for one in found:
        candidates = one["candidates"]
        assert candidates["boxes"].shape == (len(candidates["logits"]), 3, 4)
        assert candidates["activation"] == "softmax"
        own = candidates["boxes"][candidates["kept"], one["labels"]]
        assert (own - one["boxes"]).abs().max() < 1e-3
        scores = candidates["logits"][candidates["kept"]].softmax(1)
        assert torch.allclose(scores.gather(1, one["labels"][:, None])[:, 0], one["scores"], atol=1e-6)
    assert before == (dict(vars(module)), dict(vars(module.roi_heads)), dict(vars(module.transform)))
    with torch.no_grad():
        assert "candidates" not in module(image)[0]


def test_a_detector_finds_in_a_square_picture_what_torchvisions_own_finds(sample_images):
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    network = load(f"torchvision:{name}", weights="random", seed=3, min_score=0.0)
    own = torchvision.models.get_model(name, weights=None, weights_backbone=None, box_score_thresh=0.0).eval()
    own.load_state_dict(network.module.state_dict())
    with Image.open(sample_images / "coffee.png") as file:
        picture = file.convert("RGB").resize((320, 320))
    image, _ = network.preprocess(picture)
    with torch.no_grad():
        [ours], [theirs] = network.module(image[None]), own([torchvision.transforms.functional.to_tensor(picture)])
    assert all(torch.equal(ours[part], theirs[part]) for part in ("boxes", "labels", "scores"))
    assert len(network.labels) == 91
    assert network.labels.find("teddy bear") == 88


def test_a_segmentation_is_prepared_as_torchvision_does_but_for_the_padding(sample_images):
    network = load("torchvision:lraspp_mobilenet_v3_large", weights="random")
    steps = torchvision.models.get_model_weights("lraspp_mobilenet_v3_large").DEFAULT.transforms()
    with Image.open(sample_images / "coffee.png") as file:
        picture = file.convert("RGB")
    square = picture.crop((0, 0, 300, 300))
    assert torch.equal(network.preprocess(square)[0], steps(square))
    image, view = network.preprocess(picture)
    assert view.sees_whole_picture
    # The padding is the mean colour, which the model sees as zero but for rounding.
    assert image[:, 0].abs().max() < 0.01
    assert any("padded" in note for note in network.notes)


def test_weights_from_a_file_bring_their_number_of_classes(tmp_path):
    made = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    torch.save(made.state_dict(), tmp_path / "w.pth")
    network = load("torchvision:lraspp_mobilenet_v3_large", weights=str(tmp_path / "w.pth"))
    assert network.labels.names == ("class 0", "class 1", "class 2")
    plain = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=False
    )
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    network = load("torchvision:deeplabv3_mobilenet_v3_large", weights=str(tmp_path / "w.pth"))
    assert network.module.aux_classifier is None
    assert len(network.labels) == 21


def test_sides_that_are_no_multiple_of_the_pyramids_are_refused():
    network = load("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", weights="random")
    with pytest.raises(RequestError, match="multiples of 32, not 100x128"):
        network.module(torch.rand(1, 3, 100, 128))


def test_nothing_is_fetched_for_random_weights(monkeypatch):
    def fetch(*given, **more):
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    for name in ("fasterrcnn_mobilenet_v3_large_320_fpn", "lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"):
        network = load(f"torchvision:{name}", weights="random")
        assert network.module.get_submodule(network.layer)
        assert source.has(name)
        assert name in source.names()


# ---- from images to files, with small models

SMALL = '''
import torch
from torch import nn
import camcli

class Colours(nn.Module):
    """A layer at half the size that hands on red, green and blue."""
    def __init__(self):
        super().__init__()
        self.layer = nn.AvgPool2d(2)
        self.like = nn.Parameter(torch.ones(1))

class Pixels(Colours):
    def forward(self, x):
        return {"aux": x, "out": nn.functional.interpolate(self.layer(x * self.like), scale_factor=2)}

class Halves(Colours):
    """A box for the left half and one for the right, of the strongest colour there."""
    def forward(self, x):
        h, w = x.shape[2:]
        boxes = torch.tensor([[0.0, 0, w / 2, h], [w / 2, 0, w, h]])
        found = []
        for one in self.layer(x * self.like):
            means = torch.stack([half.mean((1, 2)) for half in one.tensor_split(2, dim=2)])
            scores, labels = means.max(1)
            found.append({"boxes": boxes, "labels": labels, "scores": scores})
        return found

def network(module, task):
    prepare = camcli.Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3, (16, 16), "longer", "nearest")
    labels = camcli.Labels(("red", "green", "blue"))
    return camcli.Network("mine", module, prepare, labels, "pretrained", "my own", output_spec=camcli.OutputSpec(task))

def pixels():
    return network(Pixels(), "segment")

def halves():
    return network(Halves(), "detect")
'''


@pytest.fixture
def small(here: Path) -> Path:
    """A file with a small segmentation and a small detector; the images lie beside it."""
    (here / "small.py").write_text(SMALL)
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, :32, 0], picture[:, 32:, 1] = 255, 204
    Image.fromarray(picture).save(here / "red-green.png")
    return here


def outcomes(**options):
    job = {"inputs": ("red-green.png",), "out": "out", "device": "cpu", "layers": ("layer",), **options}
    with Run(Job(**job)) as run:
        return [one for some in run for one in some]


def test_a_region_of_the_picture_is_summed_over(small):
    [red] = outcomes(model="small.py:pixels", target=("red",), method="hirescam", save=("array",))
    # The image fills 16x8 pixels of the input; red is predicted in the left half: 8x8 pixels.
    assert red.score == pytest.approx(64)
    assert red.probability == pytest.approx(np.e / (np.e + 2), rel=1e-6)
    map = np.load(f"out/{red.files['array']}")
    assert map.shape == (8, 8)
    assert np.argwhere(map > 0).tolist() == [[row, column] for row in range(2, 6) for column in range(4)]
    [given] = outcomes(model="small.py:pixels", target=("red",), region="16,0,48,16", out="given")
    assert given.score == pytest.approx(4 * 4)
    mask = np.zeros((32, 64), np.uint8)
    mask[:8, :8] = 1
    Image.fromarray(mask).save("mask.png")
    [masked] = outcomes(model="small.py:pixels", target=("red",), region="mask.png", out="masked")
    assert masked.score == pytest.approx(2 * 2)
    [away] = outcomes(model="small.py:pixels", target=("red",), region="500,500,600,600", out="away")
    assert "outside the model's input" in away.error
    said = json.loads(Path("given/run.json").read_text())
    assert said["explained"] == "class logits (before softmax), summed over the region given"


def test_a_mask_of_another_size_fails_its_picture_only(small):
    Image.new("L", (8, 8), 255).save("mask.png")
    [one] = outcomes(model="small.py:pixels", region="mask.png")
    assert "64x32 pixels, but the mask of the region is 8x8" in one.error


def test_each_box_has_its_files_its_score_and_its_place_in_the_picture(small):
    first, second = outcomes(model="small.py:halves", save=("panel", "overlay"), min_score=0.3)
    assert (first.label, first.number, first.box) == ("red", 1, (0, 0, 32, 32))
    assert (second.label, second.number, second.box) == ("green", 2, (32, 0, 64, 32))
    # Half of each box is padding.
    assert (first.score, second.score) == pytest.approx((0.5, 0.4), rel=0.02)
    assert first.files["overlay"] == "red-green.png.box1.0-red.overlay.jpg"
    assert all((Path("out") / file).is_file() for one in (first, second) for file in one.files.values())
    lines = [json.loads(line) for line in Path("out/outcomes.jsonl").read_text().splitlines()]
    assert [line["box"] for line in lines] == [[0, 0, 32, 32], [32, 0, 64, 32]]
    assert outcomes(model="small.py:halves", save=("panel", "overlay"), min_score=0.3) == []


def test_boxes_of_a_run_drawn_at_one_scale_are_read_back(small):
    options = {"model": "small.py:halves", "save": ("panel",), "normalize": "run", "min_score": 0.3}
    first, second = outcomes(**options)
    assert not first.error
    assert not second.error
    assert (Path("out") / first.files["panel"]).is_file()


def test_the_least_score_and_the_class_choose_boxes(small):
    assert [one.label for one in outcomes(model="small.py:halves", min_score=0.45)] == ["red"]
    assert [one.label for one in outcomes(model="small.py:halves", target=("green",), min_score=0.3, out="o")] == [
        "green"
    ]
    [none] = outcomes(model="small.py:halves", min_score=0.9, out="p")
    assert "finds no box with a score of at least 0.9" in none.error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "small.py:halves", "region": "0,0,1,1"}, "does not score every pixel"),
        ({"model": "small.py:pixels", "min_score": 0.3}, "finds no boxes"),
        ({"model": "small.py:pixels", "region": "nowhere.png"}, "is neither x0,y0,x1,y1 nor an image"),
        ({"model": "small.py:pixels", "region": "3,3,1,1"}, "is empty"),
        ({"model": "small.py:pixels", "output": "outt"}, "has no 'outt'"),
        ({"model": "small.py:pixels", "min_score": 1.5}, "min_score cannot be 1.5"),
    ],
)
def test_what_means_nothing_to_a_model_is_refused(small, options, said):
    with pytest.raises(RequestError, match=said):
        outcomes(**options)
    assert not Path("out").exists()


def test_another_output_is_explained_when_it_is_named(small):
    [one] = outcomes(model="small.py:pixels", output="out", target=("green",))
    assert one.score == pytest.approx(64 * 0.8, rel=0.01)
    with pytest.raises(RequestError, match="no gradient"):
        outcomes(model="small.py:pixels", output="aux", target=("green",), out="other")
