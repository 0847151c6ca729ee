"""From a prompt to a map on real weights: the stand-in of tests/kit/standin.py, made, saved and read back.

What it says of images is the bundled classifier's, and none of it is CLIP's.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from compose_sample import ESPRESSO, HALF
from PIL import Image
from standin import prompt
from test_acceptance import BOXES, FOUND
from torch import Tensor

import camcli
from camcli.engine.explanation import Explanation
from camcli.models import BUNDLED_MODEL, load

pytestmark = pytest.mark.slow

BOTH = "cat-and-espresso.jpg"
# Once the mean of its rows is taken off and their lengths are made equal, the classifier says pier of this image.
UNLIKE = {"cincinnati-bridge.jpg": "pier"}


def cup(source: Path) -> tuple[float, float, float, float]:
    """Where the cup is in the image of both, in pixels: where it is in its own image, as that was cut."""
    name, (left, top, right, bottom) = ESPRESSO
    with Image.open(source / name) as picture:
        x0, y0, x1, y1 = (part * side for part, side in zip(BOXES[name], picture.size * 2, strict=True))
    across, down = HALF[0] / (right - left), HALF[1] / (bottom - top)
    return HALF[0] + max(0, x0 - left) * across, (y0 - top) * down, HALF[0] + (x1 - left) * across, (y1 - top) * down


@pytest.fixture
def maps(standin: str, sample_images: Path) -> Callable[..., dict[str, Explanation]]:
    """The maps of espresso and tabby in the image of both."""

    def maps(method: str, crop: str = "model") -> dict[str, Explanation]:
        text = {prompt(name): name for name in ("espresso", "tabby")}
        explained = camcli.explain(
            sample_images / BOTH, model=standin, text=list(text), target="top:2", method=method, crop=crop, device="cpu"
        )
        return {text[one.label]: one for one in explained}

    return maps


@pytest.mark.parametrize("crop", ["model", "squash"])
@pytest.mark.parametrize("method", ["gradcam", "hirescam", "gscorecam"])
def test_espresso_peaks_in_the_cup_and_tabby_on_the_cat(maps, sample_images: Path, method: str, crop: str) -> None:
    found = maps(method, crop)
    assert {one.layer for one in found.values()} == {"visual.trunk.bn2"}
    peaks = {name: one.view.peak(one.map) for name, one in found.items()}
    x0, y0, x1, y1 = cup(sample_images)
    assert x0 < peaks["espresso"][0] < x1
    assert y0 < peaks["espresso"][1] < y1
    assert peaks["tabby"][0] < HALF[0]


def test_layercam_leans_to_the_cup_and_to_the_cat(maps) -> None:
    # Of rectified gradients the greatest product lies on the column of cells that both halves share.
    found = maps("layercam")
    right = {name: one.map[:, 4:].sum() / one.map.sum() for name, one in found.items()}
    assert right["tabby"] < 0.2
    assert right["espresso"] > 0.5


def test_every_sentence_lands_on_its_class(everything, rows: Tensor) -> None:
    network, indices = everything
    alike = (network.module.prompts.double() * rows[indices]).sum(1)
    assert alike.mean() > 0.998
    # What reads the same has one place for two classes: `crane` and `maillot`; and `cardigan`, a dog and a jacket.
    names = [network.labels.names[row] for row in (alike < 0.99).nonzero().flatten().tolist()]
    assert {name.lower() for name in names} == {prompt(name) for name in ("crane", "maillot", "cardigan")}


def test_zero_shot_says_of_the_samples_what_the_classifier_says(everything, rows: Tensor, sample_images: Path) -> None:
    network, _ = everything
    own = load.load(BUNDLED_MODEL)
    for name, (label, _) in FOUND.items():
        with Image.open(sample_images / name) as picture:
            images = [one.preprocess(picture.convert("RGB"))[0][None] for one in (own, network)]
        with torch.no_grad():
            # As the bundled model sees the image, with an eighth left outside.
            assert network.labels.names[network.module(images[0]).argmax()] == prompt(UNLIKE.get(name, label)), name
            # As open_clip sees it: what the classifier's own rows would say, less their mean and at unit length.
            features = own.module.forward_head(own.module.forward_features(images[1]), pre_logits=True)
            wanted = own.labels.short(int((features.double() @ rows.T).argmax()))
            assert network.labels.names[network.module(images[1]).argmax()] == prompt(wanted), name


@pytest.fixture(scope="module")
def everything(standin: str) -> tuple[camcli.Network, list[int]]:
    """The stand-in with a sentence for each name; and which class of the bundled model each of them is."""
    own = load.load(BUNDLED_MODEL).labels
    names = {own.short(index): index for index in reversed(range(len(own)))}
    return load.load(standin, text=tuple(map(prompt, names))), list(names.values())


@pytest.fixture(scope="module")
def rows() -> Tensor:
    """The bundled classifier's rows less their mean, at unit length: ``(1000, 1280)``."""
    weight = load.load(BUNDLED_MODEL).module.get_submodule("classifier").weight.detach().double()
    return torch.nn.functional.normalize(weight - weight.mean(0), dim=1)


def test_it_is_the_same_every_time(standin: str, tmp_path: Path) -> None:
    import standin as making

    making.write(tmp_path / "again")
    again = load.load(f"open_clip:local-dir:{tmp_path / 'again'}", text=(prompt("tabby"), prompt("espresso")))
    once = load.load(standin, text=(prompt("tabby"), prompt("espresso")))
    # But for rounding, which the thousand sentences, being much alike, make larger.
    assert ((again.module.prompts * once.module.prompts).sum(1) > 0.9999).all()
