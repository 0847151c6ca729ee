"""YOLO detectors of ultralytics: boxes as its own predictions have them, each traced to the cell that it came from."""

import numpy as np
import pytest
import torch
from PIL import Image

from camcli.base.errors import RequestError
from camcli.images.transform import Preprocess
from camcli.models.load import load


def test_what_cannot_be_loaded_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"ultralytics|there is no file"):
        load(f"ultralytics:{tmp_path / 'best.pt'}")
    with pytest.raises(RequestError, match="has no weights"):
        load("ultralytics:yolo11n.yaml")
    with pytest.raises(RequestError, match="is itself the file of weights"):
        load("ultralytics:best.pt", weights="random")


def test_opencv_resizes_by_the_four_nearest_pixels():
    """Half of a row 0, 100, 0, 100, ...: the mean of each two, as pixels' centres lie; of a third the middle one."""
    row = np.tile(np.array([0, 90, 0], np.uint8), (3, 4))
    image = Image.fromarray(np.stack([row] * 3, -1))
    values, view = Preprocess(
        (4, 4), (0.0,) * 3, (1.0,) * 3, fit="longer", interpolation="bilinear", fill=114, arithmetic="opencv"
    )(image)
    assert torch.allclose(values[:, 1, :], torch.tensor(90 / 255))
    assert torch.allclose(values[:, 0, :], torch.tensor(114 / 255))
    assert view.box == (0, -3, 12, 9)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of an untrained network whose classes are uneven enough that some boxes are sure."""
    ultralytics = pytest.importorskip("ultralytics", reason="ultralytics is under the AGPL, and no dependency")
    torch.manual_seed(0)
    yolo = ultralytics.YOLO("yolo11n.yaml")
    norms = [part for part in yolo.model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for part in norms:  # statistics of one batch, since activations vanish without
        part.momentum = 1.0
    with torch.no_grad():
        yolo.model.train()(torch.rand(4, 3, 128, 128))
    for branch in yolo.model.model[-1].cv3:
        branch[-1].weight.data.mul_(2)
        branch[-1].bias.data.fill_(-2.0)
    file = tmp_path_factory.mktemp("yolo") / "best.pt"
    yolo.save(file)
    return file


def picture(width=90, height=61):
    noise = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


def test_the_input_is_letterboxed_to_the_bit(weights):
    from ultralytics.data.augment import LetterBox

    preprocess = load(f"ultralytics:{weights}").preprocess
    for width, height in ((90, 61), (333, 500), (1001, 700)):
        ours, _ = preprocess(image := picture(width, height))
        theirs = LetterBox((640, 640))(image=np.asarray(image))
        assert torch.equal(ours, torch.from_numpy(theirs.copy()).permute(2, 0, 1).float().div(255))


def test_boxes_are_those_of_its_predictions(weights):
    import ultralytics

    network = load(f"ultralytics:{weights}", min_score=0.3, size="128")
    values, _ = network.preprocess(picture())
    with torch.no_grad():
        [ours] = network.module(values[None])
    yolo = ultralytics.YOLO(weights)
    [theirs] = yolo.predict(values[None], conf=0.3, iou=0.7, verbose=False, imgsz=128)
    assert len(ours["boxes"]) == len(theirs.boxes) > 0
    # It cuts them at the image's edge.
    assert torch.allclose(ours["boxes"].clamp(0, 128), theirs.boxes.xyxy, atol=1e-2)
    assert torch.allclose(ours["scores"], theirs.boxes.conf, atol=1e-4)
    assert torch.equal(ours["labels"], theirs.boxes.cls.long())


def test_a_map_is_the_gradient_of_a_cells_logit_at_its_level(weights):
    from ultralytics import YOLO

    from camcli import Explainer

    network = load(f"ultralytics:{weights}", min_score=0.3, size="128")
    values, _ = network.preprocess(picture())
    module, kept = YOLO(weights).model.float().eval(), []
    module.model[-1].register_forward_pre_hook(lambda _, given: kept.extend(given[0]))
    _, raw = module(values[None].clone().requires_grad_())
    logits = raw["scores"][0]
    with torch.no_grad():
        [ours] = network.module(values[None])
    best = int(ours["scores"].argmax())
    cell, index = int(ours["candidates"]["kept"][best]), int(ours["labels"][best])
    level = int(cell >= 16 * 16) + int(cell >= 16 * 16 + 8 * 8)
    explain = Explainer(network, layers=[f"levels:level{level}"], method="hirescam")
    number = int((ours["scores"] > ours["scores"][best]).sum()) + 1
    one = next(one for one in explain.results(values[None])[0] if getattr(one, "number", 0) == number)
    [grad] = torch.autograd.grad(logits[index, cell], kept[level])
    wanted = (grad * kept[level])[0].sum(0).detach().numpy()
    assert one.score == pytest.approx(logits[index, cell].item(), abs=1e-3)
    assert np.abs(wanted).max() > 1e-5
    assert np.allclose(one.map, wanted, atol=1e-3 * np.abs(wanted).max())
