"""What fails for one image fails for it alone; what fails for all is told before the first."""

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Pooled, Small, pictures, seeded
from shared import Paint
from torch import Tensor, nn

import camcli
from camcli import Explainer, Job, Run
from camcli.base.errors import PictureError, RequestError
from camcli.engine.speed.tune import optimize_weights
from camcli.targets.target import Score

BLACK, RED, WHITE = (0, 0, 0), (255, 0, 0), (255, 255, 255)


# ---- images of a batch with different numbers of targets


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "eigencam", "gradcam,layercam"])
@pytest.mark.parametrize("targets", [[[0], [1, 2, 3], [2, 0]], [[3, 1], [0], [2, 1, 0]], [[], [1, 2], [3]]])
def test_each_image_has_its_own_maps_whatever_the_number_of_its_targets(method: str, targets: list[list[int]]) -> None:
    explainer = Explainer(seeded(Small()), layers="conv2", method=method)
    images = pictures(3)
    together = explainer.results(images, lambda row, scores: targets[row])
    for row, own in enumerate(targets):
        if not own:
            assert isinstance(together[row][0], PictureError)
            continue
        [alone] = explainer(images[row : row + 1], [own])
        assert len(alone) == len(own) * len(explainer.methods)
        for one, other in zip(together[row], alone, strict=True):
            assert isinstance(one, camcli.Explanation)
            assert (one.index, one.label, one.method) == (other.index, other.label, other.method)
            assert one.score == pytest.approx(other.score, rel=1e-6)
            np.testing.assert_allclose(one.map, other.map, rtol=1e-5, atol=1e-7)


def test_the_gradients_at_the_layer_are_that_images_by_hand() -> None:
    model, images = seeded(Pooled()), pictures(3)
    explainer = Explainer(model, layers="last", method="hirescam")
    results = explainer.results(images, lambda row, scores: [[2], [0, 1], [1, 2, 0]][row])
    act = model.last(model.features(images)).detach()
    for row, classes in enumerate([[2], [0, 1], [1, 2, 0]]):
        for result, index in zip(results[row], classes, strict=True):
            # Behind mean pooling over n cells the gradient is the class's weight over n.
            by_hand = torch.einsum("k,kij->ij", model.fc.weight[index].detach(), act[row]) / act[0, 0].numel()
            np.testing.assert_allclose(result.map, by_hand.numpy(), rtol=1e-5, atol=1e-7)


# ---- a method that fails on one image


class Gated(nn.Module):
    """Of an image with a pixel above 50 the features are multiplied by each other, which is no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)
        seeded(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images).relu().mean((2, 3))
        bright = images.amax((1, 2, 3)) > 50
        return self.fc(torch.where(bright[:, None], features * features, features))


def test_fullgrad_of_one_image_fails_and_the_others_stand() -> None:
    images = pictures(3)
    images[1, 0, 0, 0] = 60
    explainer = Explainer(Gated(), method="fullgrad")
    one, two, three = explainer.results(images, lambda row, scores: [0, 1])
    assert all(isinstance(result, PictureError) and "is missing" in result.message for result in two)
    assert len(two) == 2
    for row, results in ((0, one), (2, three)):
        [alone] = explainer(images[row : row + 1], [[0, 1]])
        for result, other in zip(results, alone, strict=True):
            np.testing.assert_allclose(result.map, other.map, rtol=1e-5, atol=1e-7)
    with pytest.raises(PictureError, match="image 1 of the batch: input times gradient and bias"):
        explainer(images, 0)


class Windows(Gated):
    """Each image is cut into four, as Swin's windows and a detector's regions are, before a bias is added."""

    def forward(self, images: Tensor) -> Tensor:
        quarters = torch.cat([part for half in images.chunk(2, 2) for part in half.chunk(2, 3)])
        return self.fc(self.conv(quarters).relu().mean((2, 3)).unflatten(0, (4, -1)).mean(0))


def test_a_bias_of_pieces_of_an_image_has_no_place_for_fullgrad() -> None:
    with pytest.raises(
        RequestError, match=r"fullgrad cannot be computed .* added to a tensor 4x4x4x4 for 1 image, such as"
    ):
        Explainer(Windows(), method="fullgrad")(pictures(2), 0)


def test_the_other_methods_of_that_image_stand_too() -> None:
    images = pictures(2)
    images[1, 0, 0, 0] = 60
    results = Explainer(Gated(), layers="conv", method="fullgrad,gradcam").results(images, lambda row, scores: [0])
    assert [type(result).__name__ for result in results[0]] == ["Explanation", "Explanation"]
    assert [type(result).__name__ for result in results[1]] == ["PictureError", "Explanation"]
    [[_, alone]] = [Explainer(Gated(), layers="conv", method="fullgrad,gradcam").results(images[1:], lambda *_: [0])[0]]
    np.testing.assert_array_equal(results[1][1].map, alone.map)


def test_a_box_of_a_class_that_nobody_named_is_that_images_failure() -> None:
    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
            said = self.conv(images).relu().mean((2, 3)).sigmoid()
            box = torch.tensor([[0.0, 0, 4, 4]])
            numbers = (images.amax((1, 2, 3)) > 50).long() * 7
            return [
                {"boxes": box, "labels": number[None], "scores": one[:1]}
                for one, number in zip(said, numbers, strict=True)
            ]

    preprocess = camcli.Preprocess((8, 8), (0.0,) * 3, (1.0,) * 3, (8, 8))
    output_spec, labels = camcli.OutputSpec("detect", min_score=0.1), camcli.Labels(("cat", "dog"))
    network = camcli.Network("boxes", Boxes().eval(), preprocess, labels, "pretrained", "here", output_spec=output_spec)
    images = pictures(3, dtype=torch.float32)
    images[1] = 60
    one, two, three = Explainer(network, layers="conv", method="hirescam").results(images)
    assert [type(result).__name__ for result in (*one, *three)] == ["Explanation"] * 2
    [error] = two
    assert "a box of class 7 in it, but 2 classes are named" in error.message


# ---- from the shell


MODEL = """
import torch
from torch import nn
import camcli

class Net(nn.Module):
    def __init__(self, flat):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.flat = nn.Conv2d(3, 4, 3, padding=1), flat
        self.fc = nn.Linear(4 * 64 if flat else 4, 2)

    def forward(self, images):
        cells = self.body(images)
        if self.flat:
            return self.fc(cells.flatten(1))
        # Linear behind the pooling, but for an image that is red.
        red = (images[:, 0] - images[:, 1]).mean((1, 2)) > 0.9
        said = self.fc(cells.mean((2, 3)))
        return torch.where(red[:, None], said ** 3, said)

def make(flat=False):
    prepare = camcli.Preprocess((8, 8), (0.0,) * 3, (1.0,) * 3, (8, 8), "squash")
    return Net(flat).eval(), prepare, ["a", "b"]

def flat():
    return make(True)
"""


def run(**options: object) -> list[list[camcli.Outcome]]:
    with Run(Job(inputs=("in",), out="out", device="cpu", layers=("body",), save=("array",), **options)) as going:
        return list(going)


@pytest.fixture
def three(paint: Paint, here: Path) -> None:
    (here / "m.py").write_text(MODEL)
    for name, colour in (("a", BLACK), ("b", RED), ("c", WHITE)):
        paint(f"in/{name}.png", colour)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("batch", [1, 3])
def test_cam_where_one_picture_leaves_it_undefined(batch: int) -> None:
    outcomes = [one for [one] in run(model="m.py:make", method="cam", batch_size=batch)]
    assert [one.error is None for one in outcomes] == [True, False, True]
    assert "CAM is not defined here" in (outcomes[1].error or "")


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "m.py:flat", "method": "cam"}, "CAM is not defined here"),
        ({"model": "m.py:make", "method": "smooth-gradcam++", "options": ("samples=0",)}, "0 samples are too few"),
        ({"model": "m.py:make", "method": "ablation-cam,rise", "options": ("rise.samples=0",)}, "samples=0|too few"),
    ],
)
def test_what_holds_for_all_pictures_is_told_before_the_first(options: dict, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        run(**options)
    assert not Path("out").exists()


@pytest.mark.usefixtures("three")
def test_a_target_that_no_class_has_fails_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(inputs=("in",), out="out", device="cpu", layers=("body",), save=("array",), model="m.py:make")
    with Run(job) as going:
        # As a target of another package may give.
        going.worker.target_rule = lambda path, scores: [9] if path.stem == "b" else [0]
        outcomes = [one for [one] in going]
    assert [one.error is None for one in outcomes] == [True, False, True]
    assert outcomes[1].error == "there is no class 9 (the model has 2 classes, counted from 0 to 1)"


# ---- the strongest rival


def test_the_strongest_rival_is_the_first_of_equal_ones() -> None:
    margin = Score(has_rivals=True)
    scores = torch.tensor([3.0, 7.0, -torch.inf, 7.0, 5.0, 7.0])
    assert [margin.find_rivals(scores, index) for index in range(6)] == [(1,), (3,), (1,), (1,), (1,), (1,)]
    generator = torch.Generator().manual_seed(0)
    for count in (2, 5, 300):
        many = torch.randint(0, 4, (count,), generator=generator).float()
        many[torch.rand(count, generator=generator) < 0.3] = -torch.inf
        for index in range(min(count, 20)):
            order = many.argsort(descending=True, stable=True).tolist()
            others = [one for one in order if one != index and many[one] > -torch.inf][:1]
            if others:
                assert margin.find_rivals(many, index) == tuple(others)
            else:
                with pytest.raises(PictureError, match="no other class"):
                    margin.find_rivals(many, index)


# ---- a layer of two names


class Twice(nn.Module):
    """Its one block has a second name, and its convolution is folded with the norm behind it where nobody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.again, self.inner = self.block, self.block[0]
        self.fc = nn.Linear(4, 3)
        seeded(self, dtype=torch.float32)
        self.block[1].running_var.fill_(4.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.block(images).mean((2, 3)))


@pytest.mark.parametrize(
    ("second", "first"), [("again", "block"), ("again.0", "block.0"), ("inner", "block.0"), ("again.-1", "block.2")]
)
def test_by_its_second_name_a_layer_says_the_same(second: str, first: str) -> None:
    images, noise = pictures(2, dtype=torch.float32), pictures(1, seed=3, dtype=torch.float32)
    plain = Explainer(Twice(), layers=first, method="hirescam")(images, 1)
    explainer = Explainer(Twice(), layers=[second, first], method="hirescam")
    assert explainer.layers == (first,)
    optimize_weights(explainer, noise)  # as a run does, which folds
    for [one], [other] in zip(explainer(images, 1), plain, strict=True):
        assert one.layer == first
        np.testing.assert_allclose(one.map, other.map, rtol=1e-4, atol=1e-6)
