"""Detectors of libreyolo: boxes as its own predictions have them, each traced to the cell or query it came from.

With a stand-in for the library where that is enough; the rest is skipped where it is not installed.
"""

import re
import sys

import libreyolo_standin as standin
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from camcli import Explainer, Preprocess
from camcli.base.errors import RequestError
from camcli.models.load import load
from camcli.models.sources.libreyolo import FAMILIES, OVERLAP

# A method of libreyolo's models.
PREPARE = "_preprocess"
# Smallest sizes; those that are not here are alike.
SMALL = {"yolo9": "t", "yolo9_e2e": "t", "yolox": "n", "yolonas": "s", "rtdetr": "r18", "dfine": "n", "deimv2": "atto"}

# Untrained networks of the others give many boxes one score, of which any may be among the best 300.
UNTIED = ("yolox", "yolonas")


def picture(width=90, height=61, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


def test_an_image_is_padded_to_sides_that_are_rounded_down():
    """A third of 100 x 50 is 33.3 x 16.7: with padding it lies in the corner, or centred, 33 x 16."""
    preprocess = Preprocess((33, 33), (0.0,) * 3, (1.0,) * 3, fit="longer", fill=114, corner=True, floor=True)
    values, view = preprocess(Image.new("RGB", (100, 50), (255, 0, 0)))
    assert torch.equal((values[0] == 1).nonzero().amax(0), torch.tensor([15, 32]))
    assert torch.allclose(values[:, 16:], torch.tensor(114 / 255))
    assert view.box == (0, 0, 100, 33 * 50 / 16)


def test_boxes_of_a_class_that_overlap_a_better_one_are_dropped(tmp_path, monkeypatch):
    standin.install(monkeypatch)
    module = standin.write(tmp_path / "best.pt")
    network = load(f"libreyolo:{tmp_path / 'best.pt'}", min_score=0.5)
    assert network.labels.names == standin.CLASSES
    assert network.pyramid == "model.neck"
    values, view = network.preprocess(picture())
    assert view.box[:3] == (0, 0, 90)
    with torch.no_grad():
        [found] = network.module(values[None])
        predicted = module(values[None])["predictions"][0].T
    assert len(found["boxes"]) > 1
    pairs = [
        (float(row[4 + index]), index, cell)
        for cell, row in enumerate(predicted)
        for index in range(3)
        if row[4 + index] > 0.5
    ]
    # By hand: the image is 64 x 43 in the corner, where boxes are cut.
    cut = predicted[:, :4].clone()
    cut[:, 0::2], cut[:, 1::2] = cut[:, 0::2].clamp(0, 64), cut[:, 1::2].clamp(0, 43)
    kept = []
    for score, index, cell in sorted(pairs, reverse=True):
        same = [other for _, label, other in kept if label == index]
        has_area = bool((cut[cell, 2:] > cut[cell, :2]).all())
        if has_area and not (box_iou(cut[[cell]], cut[same]) > OVERLAP).any():
            kept.append((score, index, cell))
    assert [one[1:] for one in kept] == list(
        zip(found["labels"].tolist(), found["candidates"]["kept"].tolist(), strict=True)
    )
    assert torch.allclose(found["scores"], torch.tensor([one[0] for one in kept]))
    assert torch.equal(found["boxes"], predicted[[one[2] for one in kept], :4])


def test_a_map_is_gradient_times_activation_of_a_cells_logit(tmp_path, monkeypatch):
    standin.install(monkeypatch)
    module = standin.write(tmp_path / "best.pt")
    network = load(f"libreyolo:{tmp_path / 'best.pt'}", min_score=0.5)
    values, _ = network.preprocess(picture())
    levels = [one.detach().requires_grad_() for one in module.neck(values[None])]
    logits = torch.cat([head(one).flatten(2)[:, 4:] for head, one in zip(module.head, levels, strict=True)], 2)[0]
    explainer = Explainer(network, method="hirescam")
    [found] = explainer.results(values[None])
    assert explainer.layers == ("model.neck:0", "model.neck:1")
    with torch.no_grad():
        [boxes] = network.module(values[None])
    order = boxes["scores"].sort(descending=True, stable=True).indices.tolist()
    assert sorted(one.number for one in found) == list(range(1, len(order) + 1))
    for one in found:
        at = order[one.number - 1]
        cell, index = int(boxes["candidates"]["kept"][at]), int(boxes["labels"][at])
        level = int(cell >= 64)
        [grad] = torch.autograd.grad(logits[index, cell], levels[level], retain_graph=True)
        wanted = (grad * levels[level])[0].sum(0).detach().numpy()
        assert one.layer == f"model.neck:{level}"
        assert one.score == pytest.approx(logits[index, cell].item(), abs=1e-5)
        assert np.allclose(one.map, wanted, atol=1e-5)


def test_what_cannot_be_loaded_is_refused(tmp_path, monkeypatch):
    standin.install(monkeypatch)
    file = tmp_path / "best.pt"
    name = f"libreyolo:{file}"
    with pytest.raises(RequestError, match="there is no file"):
        load(name)
    standin.write(file)
    for given, said in (({"weights": "random"}, "itself the file"), ({"head": "none"}, "no use for --head none")):
        with pytest.raises(RequestError, match=said):
            load(name, **given)
    for change, said in (
        ({"model_family": "rfdetr"}, "'rfdetr' and the task 'detect', which camcli does not read"),
        ({"task": "segment"}, "the task 'segment'"),
        ({"model_family": None, "names": None}, "does not say model_family, names"),
        ({"quant": {"mode": "int8"}}, "its 'quant' changes how the network computes"),
        ({"size": "xl"}, "libreyolo cannot build .*Invalid size: xl"),
        ({"leave_out": "neck.fine.weight"}, r"do not fit its network: the file lacks neck\.fine\.weight"),
    ):
        standin.write(file, **change)
        with pytest.raises(RequestError, match=said):
            load(name)
    content = torch.load(standin.write(file) and file)
    torch.save(content | {"model": content["model"] | {"other": torch.ones(1)}}, file)
    with pytest.raises(RequestError, match="the network has no place for other"):
        load(name)
    monkeypatch.setitem(sys.modules, "libreyolo", None)
    with pytest.raises(RequestError, match="need libreyolo, which is not installed") as error:
        load(name)
    assert error.value.hint == "pip install 'camcli-vision[libreyolo]'"


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_code_in_a_file_of_libreyolo_is_not_run(tmp_path, monkeypatch, capsys):
    """libreyolo itself runs it for some families, so it is read here."""
    standin.install(monkeypatch)
    standin.write(tmp_path / "best.pt", model_family="dfine", more=Evil())
    with pytest.raises(RequestError, match="would run code"):
        load(f"libreyolo:{tmp_path / 'best.pt'}")
    assert capsys.readouterr().out == ""


# ---- with the library itself


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("libreyolo.models", reason="libreyolo is an extra (libreyolo)")


@pytest.fixture(scope="module")
def files(library, tmp_path_factory):
    """A file of an untrained network of each family, whose classes are uneven enough that some boxes are sure."""
    folder = tmp_path_factory.mktemp("libreyolo")

    def write(name):
        file = folder / f"{name}.pt"
        if file.exists():
            return file
        make = getattr(library, FAMILIES[name].wrapper)
        made = make._from_scratch(size=SMALL[name], nb_classes=4, device="cpu", seed=0)
        norms = [part for part in made.model.eval().modules() if isinstance(part, torch.nn.BatchNorm2d)]
        for part in norms:  # statistics of one batch, since activations vanish without
            part.momentum = 1.0
            part.train()
        side = made.input_size
        some = torch.cat(
            [getattr(made, PREPARE)(picture(side, side))[0], getattr(made, PREPARE)(picture(side, side, 1))[0]]
        )
        with torch.no_grad():
            made.model(some)
            made.model.eval()
            scaled = some / 255 if name == "yolox" else some
            _, logits, _ = FAMILIES[name].read(made.model, scaled)
            for path, part in made.model.named_modules():
                bias = getattr(part, "bias", None)
                if isinstance(bias, torch.Tensor) and len(bias) == 4 and not re.search("box|reg", path):
                    part.weight.mul_(1 / float(logits.std()))
                    bias.fill_(-4.0 if logits.shape[1] > 1000 else -2.5)
        made.save(str(file))
        return file

    return write


def load_both(library, file, name):
    wrapper = getattr(library, FAMILIES[name].wrapper)
    return load(f"libreyolo:{file}", min_score=0.25), wrapper(
        model_path=str(file), size=SMALL[name], nb_classes=4, device="cpu"
    )


def test_every_detector_is_read_or_left_out(library):
    detectors = {one.FAMILY for one in library.BaseModel._registry if "detect" in one.SUPPORTED_TASKS and one.FAMILY}
    left_out = {  # old or rare, or read by torchvision: and hf:
        "centernet", "deformable_detr", "detr", "dinodetr", "domedetr", "efficientdet", "faster_rcnn", "fcos", "lwdetr",
        "mask_rcnn", "picodet", "ppyoloe", "retinanet", "rfdetr", "rtmdet", "ssd", "yolo1", "yolo2", "yolo3", "yolo4",
        "yolo7",
    }  # fmt: skip
    assert detectors - left_out == set(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_boxes_are_those_of_its_predictions(library, files, name):
    network, wrapper = load_both(library, files(name), name)
    image = picture(500, 500)
    values, view = network.preprocess(image)
    theirs = getattr(wrapper, PREPARE)(image)[0][0]
    assert torch.equal(values * 255 if name == "yolox" else values, theirs)
    with torch.no_grad():
        [ours] = network.module(values[None])
    predicted = wrapper.predict(image, conf=0.4).boxes
    sure = ours["scores"] > 0.4
    x0, y0, x1, y1 = view.box
    height, width = network.preprocess.size
    scale = torch.tensor([(x1 - x0) / width, (y1 - y0) / height] * 2)
    boxes = ours["boxes"][sure] * scale + torch.tensor([x0, y0] * 2)
    boxes = boxes.clamp(min=0).minimum(torch.tensor(500.0))
    scores = ours["scores"][sure]
    assert len(boxes) == len(predicted) > 0
    assert torch.allclose(scores.sort().values, predicted.conf.sort().values, atol=1e-5)
    if name in UNTIED:  # in pixels, hundredths of scores, and classes far apart
        rows = torch.cat([boxes, 100 * scores[:, None], 1000 * ours["labels"][sure, None]], 1)
        wanted = torch.cat([predicted.xyxy, 100 * predicted.conf[:, None], 1000 * predicted.cls[:, None]], 1)
        apart = torch.cdist(rows, wanted, p=float("inf"))
        assert max(float(apart.amin(axis).max()) for axis in (0, 1)) < 1e-2
