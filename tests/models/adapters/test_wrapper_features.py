"""Features beside the images: each wrapper gets its image's own, for changed images and groups too."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Small, pictures, seeded
from readback import ledger
from shared import BLUE, RED, Paint
from torch import Tensor, nn
from wrappers import WRAPPERS, run

import camcli
from camcli import Explainer, RequestError
from camcli.images.features import ExtraInputs
from camcli.methods import METHODS, works_at
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job


def test_features_come_to_the_wrapper_picture_by_picture(paint: Paint, tiny: str, wrap: str) -> None:
    # Scores times the first feature plus the second: maps times the first.
    for name, colour in (("a", RED), ("b", BLUE), ("c", RED)):
        paint(f"in/{name}.png", colour)
    Path("x.csv").write_text("picture,weight,shift\nb.png,2,0\nc.png,3,5\na.png,1,-1\n")
    outcomes = [some[0] for some in run(tiny, "in", wrap=wrap + "Scaled", extras="x.csv", layers=("stem",))]
    score = 10 * 250 / 255
    assert [one.score for one in outcomes] == pytest.approx([score - 1, 2 * score, 3 * score + 5])
    part = 10 / 256 * 250 / 255
    assert [one.strongest for one in outcomes] == pytest.approx([part, 2 * part, 3 * part])
    # Whatever the batches are.
    single = run(tiny, "in", wrap=wrap + "Scaled", extras="x.csv", layers=("stem",), batch_size=1, out="one")
    assert [some[0].score for some in single] == [one.score for one in outcomes]
    # Other features, another job.
    Path("x.csv").write_text("picture,weight,shift\nb.png,2,0\nc.png,3,5\na.png,1,-2\n")
    with pytest.raises(RequestError, match="another job"):
        run(tiny, "in", wrap=wrap + "Scaled", extras="x.csv", layers=("stem",))


def test_several_features_come_by_name(paint: Paint, tiny: str, wrap: str) -> None:
    paint("a.png", RED)
    np.savez("x.npz", picture=np.array(["a.png"]), weight=np.array([2.0]), kind=np.array([7]))
    ((one,),) = run(tiny, "a.png", wrap=wrap + "Named", extras="x.npz", layers=("stem",))
    assert one.score == pytest.approx(20 * 250 / 255 + 7)


def test_pictures_without_features_and_features_without_a_wrapper_are_refused(
    paint: Paint, tiny: str, wrap: str
) -> None:
    for name in "abc":
        paint(f"in/{name}.png", RED)
    Path("x.csv").write_text("a.png,1,2\n")
    for options, message in (
        ({"wrap": wrap + "Scaled"}, r"x\.csv has features of 1 of the 3 images; not of in/b.png, in/c.png"),
        ({}, r"features of the images \(x\.csv\) were given, but no wrapper takes them"),
    ):
        with pytest.raises(RequestError, match=message):
            run(tiny, "in", extras="x.csv", **options)
    Path("x.csv").write_text("a.png,1,2,3\nb.png,1,2,3\nc.png,1,2,3\n")
    with pytest.raises(RequestError, match=r"Plain fails on images of shape 2x3x16x16 and features of shape 2x3"):
        run(tiny, "in", extras="x.csv", wrap=wrap + "Plain")
    assert not Path("out").exists()


def test_from_standard_input_only_the_picture_without_features_fails(paint: Paint, tiny: str, wrap: str) -> None:
    for name in "ab":
        paint(f"{name}.png", RED)
    Path("x.csv").write_text("b.png,1,2\n")
    Path("names").write_text("a.png\nb.png\n")
    job = Job(model=tiny, inputs=("-",), out="out", wrap=wrap + "Scaled", extras="x.csv", layers=("stem",))
    with Path("names").open("rb") as names, Run(job, names) as under_way:
        (bad,), (good,) = list(under_way)
    assert "x.csv has no features of this image" in bad.error
    assert good.error is None


class Beside(nn.Module):
    """Features change what the network says in the middle, and at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Small()
        self.line = seeded(nn.Linear(2, 6))

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        net = self.network
        cells = net.conv2(net.pool(net.relu1(net.norm1(net.conv1(images)))))
        cells = cells * (1 + self.line(features).square()[:, :, None, None])
        return net.fc(net.relu2(cells).square().mean((2, 3))) * features[:, :1]


FEATURES = torch.tensor([[1.0, 2.0], [0.5, -1.0], [2.0, 0.3]], dtype=torch.float64)
ALONE = {"over": "picture"}
OPTIONS = {"rise": {"samples": 6}, "smoothgrad": {"samples": 3}, "dff": ALONE, "pca": ALONE, "kmeans": ALONE}
TRIED = [
    row.name
    for row in METHODS.rows
    if works_at(row) != "attention" and row.name not in ("cam", "fullgrad", "activation")
]


@pytest.mark.parametrize("method", TRIED)
def test_features_follow_their_picture_also_into_its_variants(method: str) -> None:
    model, images = Beside(), pictures(3, 16)
    place = {"layers": ["network.conv2"]} if "layer" in works_at(METHODS.find(method)) else {}
    place["options"] = OPTIONS.get(method, {})
    explain = Explainer(model, method=method, batch_size=4, **place)
    together = explain(images, [1, 2, 1], extras=FEATURES)
    for row, found in enumerate(together):
        alone = Explainer(model, method=method, batch_size=4, **place)(
            images[row : row + 1], [1, 2, 1][row : row + 1], extras=FEATURES[row : row + 1]
        )
        for one, other in zip(found, alone[0], strict=True):
            np.testing.assert_allclose(one.map, other.map, rtol=1e-4, atol=1e-6)
    assert not model._forward_pre_hooks


def test_one_pictures_features_alone_change_its_map_alone() -> None:
    model, images = Beside(), pictures(3, 16)
    explain = Explainer(model, layers=["network.conv2"])
    before = explain(images, 1, extras=FEATURES)
    other = FEATURES.clone()
    other[1] += 1
    after = explain(images, 1, extras=other)
    same = [np.array_equal(one.map, two.map) for (one,), (two,) in zip(before, after, strict=True)]
    assert same == [True, False, True]


def test_features_are_spread_over_the_variants_of_each_image() -> None:
    class Hears(nn.Module):
        def forward(self, images: Tensor, features: Tensor) -> Tensor:
            return features

    module = Hears()
    feed = ExtraInputs(module)
    features = torch.tensor([[1.0], [2.0], [3.0]])
    with feed.providing(features):
        assert module(torch.zeros(6, 3, 2, 2)).flatten().tolist() == [1, 1, 2, 2, 3, 3]
        with feed.restricted_to([2, 0]):
            assert module(torch.zeros(4, 3, 2, 2)).flatten().tolist() == [3, 3, 1, 1]
        assert module(torch.zeros(3, 3, 2, 2).half()).dtype == torch.float16
        with pytest.raises(ValueError, match="features of 3 images cannot be used with 4 images"):
            module(torch.zeros(4, 3, 2, 2))
    assert not module._forward_pre_hooks


def test_wrappers_and_features_in_python(paint: Paint, tiny: str, wrap: str) -> None:
    for name in "ab":
        paint(f"in/{name}.png", RED)
    Path("x.csv").write_text("a.png,1,0\nb.png,4,0\n")
    found = list(camcli.explain("in", model=tiny, wrap=wrap + "Scaled", extras="x.csv", layer="stem"))
    np.testing.assert_allclose(found[1].map, 4 * found[0].map, rtol=1e-6)


def test_features_go_with_groups(paint: Paint, tiny: str, wrap: str, here: Path) -> None:
    text = "\n\nclass Both(Scaled):\n    def forward(self, images, features):\n"
    text += "        return super().forward(images, features).sum(0, keepdim=True)\n"
    (here / "wrap.py").write_text(WRAPPERS + text)
    for name in "abcd":
        paint(f"in/{name}.png", RED)
    Path("x.csv").write_text("a.png,1,0\nb.png,2,0\nc.png,3,0\nd.png,4,0\n")
    options = {"wrap": wrap + "Both", "group": "2", "extras": "x.csv", "layers": ("stem",)}
    outcomes = [some[0] for some in run(tiny, "in", **options)]
    score = 10 * 250 / 255
    assert [one.score for one in outcomes] == pytest.approx([3 * score] * 2 + [7 * score] * 2)
    strongest = [one.strongest for one in outcomes]
    assert strongest == pytest.approx([number * strongest[0] for number in (1, 2, 3, 4)])
    assert len(ledger()) == 4
    assert list(itertools.chain(*run(tiny, "in", **options))) == []
