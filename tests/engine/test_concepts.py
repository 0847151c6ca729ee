"""Concepts: factorisations worked out by hand, the classes they speak for, and what the images of a run share."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Pooled, Small, named, pictures, untouched
from PIL import Image
from readback import facts, files, ledger
from torch import nn

import camcli
from camcli import Explainer, Explanation, Network, PictureError, RequestError
from camcli.engine.explanation import Concept, ConceptClass
from camcli.engine.maps import concepts
from camcli.engine.maps.concepts import pick_evenly, put_even_sample_first, sample_cells
from camcli.images.source import Picture, PictureSource
from camcli.images.transform import Preprocess
from camcli.methods.activation import eigencam
from camcli.methods.concept import dff, dff_directions, factorize, solve_weights
from camcli.outputs import OUTPUTS, draw, panel
from camcli.outputs.style import Style, concept_colour
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from conftest import BLUE, GREEN, RED, Bring, Go, Paint

STYLE = Style("inferno", 0.6, "image")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alone(act, **options):
    """Each image by itself, and no classes."""
    return dff(act, None, None, **options)


def explained(model, layers=("last",), **options):
    return Explainer(model, layers=layers, method="dff", options={"concepts": 2, **options})


# ---- the factorisation


def two_places():
    # Two concepts in places of their own: channel 0 has 4 in the left column, channels 1 and 2 have 3 and 4 on the
    # right. The right one's direction is (0, 3, 4) / 5, so its map is 5; the left one's map is 4, and comes second.
    act = torch.zeros(1, 3, 2, 2).double()
    act[0, 0, :, 0] = 4
    act[0, 1, :, 1] = 3
    act[0, 2, :, 1] = 4
    return act


MAPS = torch.tensor([[[[0.0, 5.0], [0.0, 5.0]], [[4.0, 0.0], [4.0, 0.0]]]]).double()
DIRECTIONS = torch.tensor([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]], dtype=torch.float64)


def test_dff_by_hand():
    found = alone(two_places(), concepts=2)
    torch.testing.assert_close(found.maps, MAPS, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.kept_share, torch.ones(1).double())
    assert found.classes.shape == found.score_gains.shape == (1, 2, 0)
    # One concept of an image of rank one is EigenCAM.
    act = two_places()
    torch.testing.assert_close(alone(act[:, :1], concepts=1).maps[:, 0], eigencam(act[:, :1]))


def test_the_directions_of_several_pictures_by_hand():
    # The left column in one image, the right one in another: together they are the image above.
    act = two_places()
    cells = act.flatten(2).mT.flatten(0, 1)
    torch.testing.assert_close(dff_directions(cells, concepts=2), DIRECTIONS, rtol=1e-6, atol=1e-6)
    left, right = act.clone(), act.clone()
    left[..., 1], right[..., 0] = 0, 0
    found = dff(torch.cat([left, right]), DIRECTIONS, None, concepts=2)
    wanted = torch.cat([MAPS, MAPS])
    wanted[0, 0], wanted[1, 1] = 0, 0
    torch.testing.assert_close(found.maps, wanted, rtol=1e-9, atol=1e-9)


def test_dff_rectifies_and_does_not_mix():
    act = drawn(3, 6, 4, 5)
    found = alone(act, concepts=3)
    maps = found.maps
    assert maps.shape == (3, 3, 4, 5)
    assert (maps >= 0).all()
    positive = alone(act.clamp(min=0), concepts=3)
    torch.testing.assert_close(maps, positive.maps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.kept_share, positive.kept_share)
    assert (positive.negative_share == 0).all()
    torch.testing.assert_close(
        found.negative_share, act.clamp(max=0).square().sum((1, 2, 3)) / act.square().sum((1, 2, 3))
    )
    energy = maps.flatten(2).norm(dim=2)
    assert (energy[:, :-1] >= energy[:, 1:]).all()
    for row in range(3):
        torch.testing.assert_close(alone(act[row : row + 1], concepts=3).maps[0], maps[row], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(alone(1e-9 * act, concepts=3).maps, 1e-9 * maps, rtol=1e-6, atol=1e-18)


def separable(cells=20, seed=3):
    """Places times directions, with places that are each some concept's alone, so that there is one factorisation."""
    places = drawn(cells, 3, seed=seed).abs()
    places[:6] = torch.eye(3).double().repeat(2, 1) * 2
    directions = drawn(3, 30, seed=4).abs()
    # Channels of one concept alone make the directions unique too.
    directions[:, :9] *= torch.eye(3).double().repeat(1, 3)
    return places, directions


def test_dff_finds_what_an_image_was_made_of():
    places, directions = separable()
    act = (places @ directions).T.reshape(1, 30, 4, 5)
    found = alone(act, concepts=3, iterations=3000)
    assert found.kept_share > 0.9999
    truth = (places * directions.norm(dim=1)).T
    order = truth.norm(dim=1).argsort(descending=True)
    torch.testing.assert_close(found.maps[0].flatten(1), truth[order], rtol=0.03, atol=0.03 * float(truth.max()))
    maps, parts = factorize((places @ directions)[None], 3, 3000)
    wanted = directions[order] / directions[order].norm(dim=1, keepdim=True)
    torch.testing.assert_close(parts[0], wanted, rtol=0.03, atol=0.01)
    torch.testing.assert_close(maps[0] @ parts[0], places @ directions, rtol=0.02, atol=0.06)


def test_the_order_of_concepts_does_not_hang_on_that_of_cells_or_channels():
    act = drawn(1, 6, 4, 5, seed=9).abs()
    maps, parts = factorize(act.flatten(2).mT, 3, 50)
    cells, channels = torch.randperm(20), torch.randperm(6)
    turned, others = factorize(act.flatten(2).mT[:, cells][..., channels], 3, 50)
    torch.testing.assert_close(turned, maps[:, cells], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(others, parts[..., channels], rtol=1e-6, atol=1e-9)


def test_with_its_directions_given_each_cell_is_fitted_by_hand():
    # (1, 0) and (1, 1) / sqrt 2. Within their cone both count; beside it one alone, as near as it comes; behind, none.
    directions = torch.tensor([[1.0, 0.0], [0.5**0.5, 0.5**0.5]], dtype=torch.float64)
    cells = torch.tensor([[[3.0, 1.0], [0.0, 2.0], [2.0, -1.0], [-1.0, -1.0]]]).double()
    wanted = torch.tensor([[[2.0, 2**0.5], [0.0, 2**0.5], [2.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(solve_weights(cells, directions, 200), wanted, rtol=1e-9, atol=1e-9)
    # A direction that is nothing has no part.
    none = torch.cat([directions, torch.zeros(1, 2).double()])
    torch.testing.assert_close(solve_weights(cells, none, 200)[..., :2], wanted, rtol=1e-9, atol=1e-9)


def test_no_other_weights_that_are_not_negative_come_nearer():
    rows, directions = drawn(1, 7, 9, seed=1).abs(), torch.nn.functional.normalize(drawn(4, 9, seed=2).abs(), dim=1)
    maps = solve_weights(rows, directions, 500)
    assert (maps >= 0).all()
    # Karush, Kuhn and Tucker: no gradient where a weight is positive, none that would raise one that is zero.
    gradient = (maps @ directions - rows) @ directions.mT
    assert (gradient >= -1e-6).all()
    assert ((gradient * maps).abs() < 1e-6).all()
    places, given = separable()
    given = torch.nn.functional.normalize(given, dim=1)
    torch.testing.assert_close(solve_weights((places @ given)[None], given, 500)[0], places, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"concepts": 9}, "9 concepts cannot be separated in a layer of 8 channels and 4 x 4 cells"),
        ({"concepts": 0}, "0 concepts"),
        ({"iterations": 0}, "0 iterations"),
        ({"classes": -1}, "-1 classes"),
    ],
)
def test_dff_refuses(options, reason):
    with pytest.raises(RequestError, match=reason):
        alone(drawn(1, 8, 4, 4), **options)


def test_too_many_concepts_are_refused_before_the_first_picture():
    explainer = explained(Pooled(), concepts=5)
    with pytest.raises(RequestError, match="5 concepts cannot be separated in a layer of 4 channels") as caught:
        explainer.check(pictures(1, 16))
    assert caught.value.hint == "choose 1 to 4 concepts"


# ---- the classes that a concept speaks for


def test_the_classes_equal_the_linear_formula_behind_pooling():
    model, images = Pooled(classes=5), pictures(3, 16)
    features = model.last(model.features(images)).detach()
    explainer = explained(model, classes=5)
    found = explainer(images)
    directions = dff_directions(sample_cells(features, 3), concepts=2)
    for row, [one] in enumerate(found):
        assert one.concepts
        for concept, map, direction in zip(one.concepts, one.map, directions, strict=True):
            linear = map.mean() * (model.fc.weight.detach() @ direction)
            rising = [index for index in linear.argsort(descending=True).tolist() if linear[index] > 0]
            assert [spoken.index for spoken in concept.classes] == rising
            for spoken in concept.classes:
                assert spoken.rise == pytest.approx(float(linear[spoken.index]), rel=1e-5)
                assert spoken.label == str(spoken.index)
        assert sum(concept.share for concept in one.concepts) == pytest.approx(1, abs=1e-3)
        assert one.score == pytest.approx(float(dff(features[row : row + 1], directions, None, concepts=2).kept_share))


def test_the_classes_are_those_of_the_network_behind_the_layer():
    model, images = Small(), pictures(2, 16)
    with untouched(model):
        found = explained(model, ["conv1"], classes=2, over="picture")(images)
    act = model.conv1(images).detach()
    alike = alone(act, concepts=2)
    _, directions = factorize(act.flatten(2).mT.clamp(min=0), 2, 200)

    def behind(given):
        x = model.pool(model.relu1(model.norm1(given.clone())))
        return model.fc(model.relu2(model.conv2(x)).square().mean((2, 3))).detach()

    for row, [one] in enumerate(found):
        for number, concept in enumerate(one.concepts):
            part = alike.maps[row, number] * directions[row, number][:, None, None]
            rises = (behind(part[None]) - behind(0 * part[None]))[0]
            best = [index for index in rises.argsort(descending=True).tolist() if rises[index] > 0][:2]
            assert [spoken.index for spoken in concept.classes] == best
            assert [spoken.rise for spoken in concept.classes] == pytest.approx(rises[best].tolist(), rel=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_no_classes_are_named_where_there_are_none():
    model = Pooled()
    headless = named(model, 3, headless=True)
    explainer = explained(headless)
    assert any("concepts are not labelled" in note and "no head" in note for note in explainer.notes)
    assert all(concept.classes == () for concept in explainer(pictures(1, 16))[0][0].concepts)
    [[none]] = explained(model, classes=0)(pictures(1, 16))
    assert all(concept.classes == () for concept in none.concepts)
    traced = torch.jit.trace(model.fc, torch.zeros(1, 4).double())
    closed = Pooled()
    closed.fc = traced
    explainer = explained(closed)
    assert any("cannot be run alone" in note for note in explainer.notes)
    assert explainer(pictures(1, 16))[0][0].concepts


class Boxes(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(3, 4, 3, padding=1)
        self.double()

    def forward(self, x):
        score = self.last(x).square().mean((1, 2, 3)).sigmoid()
        box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
        return [{"boxes": box, "labels": torch.tensor([1]), "scores": one[None]} for one in score]


def test_of_a_detector_there_are_concepts_without_classes():
    network = named(Boxes(), 2, size=16, output_spec=camcli.OutputSpec("detect"))
    explainer = explained(network)
    [[one]] = explainer(pictures(1, 16))
    assert len(one.concepts) == 2
    assert not any(concept.classes for concept in one.concepts)
    assert any("finds other boxes in a changed image" in note for note in explainer.notes)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(4, 2, 1)
        self.double()

    def forward(self, x):
        return self.head(self.last(x))


def test_of_a_segmentation_the_scores_are_summed_over_the_picture():
    model, images = Dense(), pictures(2, 16)
    network = named(model, 2, size=16, output_spec=camcli.OutputSpec("segment"))
    seen = torch.ones(2, 16, 16, dtype=torch.bool)
    seen[1, 8:] = False
    act = model.last(images).detach()
    directions = dff_directions(sample_cells(act, 2), concepts=2)
    results = explained(network, classes=2).results(images, picture_mask=seen)
    for row, [one] in enumerate(results):
        for map, direction, concept in zip(one.map, directions, one.concepts, strict=True):
            linear = (model.head.weight.detach()[:, :, 0, 0] @ direction) * (map * seen[row].numpy()).sum()
            assert {spoken.index for spoken in concept.classes} == set((linear > 0).nonzero().flatten().tolist())
            for spoken in concept.classes:
                assert spoken.rise == pytest.approx(float(linear[spoken.index]), rel=1e-4)


# ---- one explanation an image, of no class


def test_a_picture_has_one_explanation_whatever_is_asked_for():
    model, images = Pooled(), pictures(3, 16)
    explainer = explained(model)
    found = explainer(images, [[0, 1, 2]] * 3)
    assert [len(one) for one in found] == [1, 1, 1]
    assert {(one.index, one.label, one.probability) for [one] in found} == {(None, "2 concepts", None)}
    np.testing.assert_array_equal(found[0][0].map, explainer(images, 1)[0][0].map)
    assert "a target has no effect" in " ".join(explainer.notes)
    assert explainer.describe_target() == "the layer's activations as a sum of concepts; no class"
    # An image whose target gives no class has its concepts too.
    assert [len(one) for one in explainer.results(images, lambda row, scores: [])] == [1, 1, 1]
    both = Explainer(model, layers=["last"], method=["dff", "gradcam"], options={"concepts": 2})
    assert [(one.method, one.index) for one in both(images, [[2, 0]] * 3)[1]] == [
        ("dff", None),
        ("gradcam", 2),
        ("gradcam", 0),
    ]


def test_a_batch_is_its_pictures_where_directions_are_given_or_each_has_its_own():
    model, images = Pooled(), pictures(3, 16)
    apart = explained(model, over="picture")
    assert not apart.fits_concepts
    given = explained(model)
    assert given.fits_concepts
    given.fit(given.sample_cells(some, 3) for some in images.split(2))
    for explainer in (apart, given):
        whole = explainer(images)
        for row in range(3):
            [[one]] = explainer(images[row : row + 1])
            np.testing.assert_allclose(one.map, whole[row][0].map, rtol=1e-5, atol=1e-8)
            assert [[spoken.index for spoken in concept.classes] for concept in one.concepts] == [
                [spoken.index for spoken in concept.classes] for concept in whole[row][0].concepts
            ]
    # Fitted to the batch before is what a call does by itself.
    for [one], [other] in zip(explained(model)(images), given(images), strict=True):
        np.testing.assert_allclose(one.map, other.map, rtol=1e-5, atol=1e-8)


def test_what_holds_no_numbers_fails_alone_and_does_not_spoil_the_set():
    model, images = Pooled(), pictures(3, 16)
    spoiled = images.clone()
    spoiled[1] = torch.nan
    results = explained(model).results(spoiled)
    assert isinstance(results[1][0], PictureError)
    [[first], [second]] = explained(model)(images[[0, 2]])
    np.testing.assert_allclose(results[0][0].map, first.map, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(results[2][0].map, second.map, rtol=1e-5, atol=1e-8)


def test_a_layer_that_is_mostly_negative_is_told():
    model = Pooled()
    [[one]] = explained(model)(pictures(1, 16))
    act = model.last(model.features(pictures(1, 16))).detach()
    share = float(act.clamp(max=0).square().sum() / act.square().sum())
    assert share > 0.1
    assert (
        f"{share:.0%} of the activations of the layer 'last' are negative, which the factorisation ignores"
        in one.notes[0]
    )
    [[positive]] = explained(model, ["features"])(pictures(1, 16))
    assert positive.notes == ()


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"scales": (1, 0.5)}, "--scales"),
        ({"flips": ("flip",)}, "--augment"),
        ({"fuse": "mean"}, "--fuse"),
        ({"eigen_smooth": True}, "--eigen-smooth"),
        ({"top_channels": 2}, "--target channels:top:N"),
        ({"score": "margin"}, "--score, --versus or --counterfactual"),
        ({"counterfactual": True}, "--score, --versus or --counterfactual"),
    ],
)
def test_what_has_no_meaning_for_concepts_is_refused(more, word):
    with pytest.raises(RequestError, match=f"cannot be combined with {word}"):
        Explainer(Pooled(), layers=["last", "features"], method="dff", **more)


def test_other_methods_have_one_map_and_methods_of_concepts_ask_for_no_class(bring: Bring):
    def several(act):
        return act[:, :2]

    def asking(act, grad):
        return act

    def fitted_to(act, basis):
        return act[:, 0]

    with pytest.raises(RequestError, match=r"returns maps of shape \(n, 2, 8, 8\)"):
        Explainer(Pooled(), layers=["last"], method=bring(several))(pictures(1, 16))
    with pytest.raises(RequestError, match="belong to no class, and takes grad"):
        Explainer(Pooled(), method=bring(asking, kind="concept"))
    with pytest.raises(RequestError, match="takes 'basis', and is of kind gradient"):
        Explainer(Pooled(), method=bring(fitted_to))


# ---- which images, and which of their cells


def test_pictures_are_spread_and_others_stand_in():
    assert pick_evenly(3) == [0, 1, 2]
    assert pick_evenly(10, limit=4) == [0, 2, 5, 7]
    assert len(set(pick_evenly(1001))) == concepts.MAX_PICTURES
    order = list(put_even_sample_first(lambda: range(205), 205))
    assert order[:3] == [0, 2, 4]
    assert sorted(order) == list(range(205))
    assert order[100] == 1


def test_of_large_layers_some_cells_are_taken_the_same_of_every_picture(monkeypatch):
    act = drawn(2, 3, 8, 8)
    assert torch.equal(sample_cells(act, 2), act.flatten(2).mT.flatten(0, 1))
    monkeypatch.setattr(concepts, "MAX_VALUES", 3 * 2 * 10)
    some = sample_cells(act, 2)
    assert some.shape == (20, 3)
    assert torch.equal(some, torch.cat([sample_cells(act[:1], 2), sample_cells(act[1:], 2)]))


# ---- a run


@pytest.fixture
def set_of_three(paint: Paint) -> None:
    """Red beside green, red beside blue, and green beside blue."""
    paint("in/a.png", RED, box=(0, 0, 16, 32), ground=GREEN)
    paint("in/b.png", RED, box=(0, 0, 16, 32), ground=BLUE)
    paint("in/c.png", BLUE, box=(16, 0, 32, 32), ground=GREEN)


DFF = {"method": "dff", "layers": ("stem",), "options": ("concepts=3",)}


def where(name: str, out: str = "out") -> dict[str, str]:
    """By the class that it speaks for, on which side of an image a concept is."""
    row = next(one for one in ledger(out) if one["name"] == name)
    maps = np.load(Path(out, row["files"]["array"]))
    return {
        concept["classes"][0]["label"]: "left" if map[:, :8].sum() > map[:, 8:].sum() else "right"
        for concept, map in zip(row["concepts"], maps, strict=True)
        if concept["share"] > 0.05
    }


def numbers(out: str = "out") -> dict[str, set[int]]:
    """By class, the numbers of the concepts that speak for it, where they have a part in an image."""
    found: dict[str, set[int]] = {}
    for row in ledger(out):
        for concept in row["concepts"]:
            if concept["share"] > 0.05:
                found.setdefault(concept["classes"][0]["label"], set()).add(concept["number"])
    return found


@pytest.mark.usefixtures("set_of_three")
def test_a_run_has_one_picture_each_and_the_same_concepts_in_all(go: Go) -> None:
    outcomes = go("in", **DFF, save=("array", "overlay", "panel", "heatmap"), target=("top:3",))
    assert [len(one) for one in outcomes] == [1, 1, 1]
    assert [file for file in files() if "a.png" in file] == [
        "in/a.png.heatmap.png",
        "in/a.png.npy",
        "in/a.png.overlay.jpg",
        "in/a.png.panel.png",
    ]
    assert where("in/a.png") == {"red": "left", "green": "right"}
    assert where("in/b.png") == {"red": "left", "blue": "right"}
    assert where("in/c.png") == {"green": "left", "blue": "right"}
    assert sorted(map(tuple, numbers().values())) == [(1,), (2,), (3,)]
    [row, *_] = ledger()
    assert (row["index"], row["label"], row["probability"]) == (None, "3 concepts", None)
    assert row["score"] == pytest.approx(1, abs=1e-3)
    maps = np.load("out/in/a.png.npy")
    assert maps.shape == (3, 16, 16)
    assert (row["low"], row["high"], row["strongest"]) == pytest.approx((0, maps.max(), maps.max()), abs=1e-6)
    # Red in half of the image: 10 times its mean.
    red = next(one for one in row["concepts"] if [spoken["label"] for spoken in one["classes"]][:1] == ["red"])
    assert red["classes"] == [{"index": 0, "label": "red", "rise": pytest.approx(10 * 250 / 255 / 2, rel=1e-2)}]
    assert red["share"] == pytest.approx(0.5, abs=0.01)
    kept = facts()["concepts"]
    assert (kept["file"], kept["pictures"]) == ("concepts.npz", 3)
    assert Path("out/concepts.npz").exists()
    assert outcomes[0][0].about == "3 concepts"


@pytest.mark.usefixtures("set_of_three")
def test_a_resumed_run_keeps_its_concepts(go: Go, paint: Paint) -> None:
    go("in/a.png", "in/b.png", **DFF)
    before, kept = Path("out/concepts.npz").read_bytes(), facts()["concepts"]
    paint("in/d.png", BLUE)
    last = go("in", **DFF)
    assert [len(one) for one in last] == [0, 0, 1, 1]
    assert Path("out/concepts.npz").read_bytes() == before
    assert facts()["concepts"] == kept
    assert all(len(found) == 1 for found in numbers().values())
    go("in", **DFF, overwrite=True)
    assert facts()["concepts"]["pictures"] == 4
    assert facts()["concepts"]["sha256"] != kept["sha256"]
    # Other concepts make another job.
    with pytest.raises(RequestError, match="results of another job"):
        go("in", **{**DFF, "options": ("concepts=2",)})


@pytest.mark.usefixtures("set_of_three")
def test_what_other_concepts_drew_is_not_done_after_an_interruption(go: Go, paint: Paint, tiny: str) -> None:
    go("in", **DFF)
    paint("in/d.png", (200, 140, 60))  # which changes the concepts of all
    job = Job(model=tiny, inputs=("in",), out="out", device="cpu", overwrite=True, batch_size=1, workers=1, **DFF)
    with Run(job) as run:
        outcomes = iter(run)
        next(outcomes)
        outcomes.close()  # type: ignore[attr-defined]
    assert [len(one) for one in go("in", **DFF)] == [0, 1, 1, 1]
    # Nor are images that are not named left with concepts of before.
    paint("in/d.png", GREEN)
    with pytest.raises(RequestError, match=r"concepts are computed again, and 2 image\(s\) in 'out'") as caught:
        go("in/a.png", "in/d.png", **DFF, overwrite=True)
    assert "name those images too" in caught.value.hint


@pytest.mark.usefixtures("set_of_three")
def test_lost_concepts_are_found_again_where_they_are_the_same_and_else_refused(go: Go) -> None:
    go("in/a.png", "in/b.png", **DFF)
    Path("out/concepts.npz").unlink()
    assert go("in/a.png", "in/b.png", **DFF) == [[], []]
    Path("out/concepts.npz").unlink()
    with pytest.raises(RequestError, match="drawn with concepts that are gone") as caught:
        go("in", **DFF)
    assert "--overwrite" in caught.value.hint
    Path("out/concepts.npz").write_bytes(b"PK nothing")
    with pytest.raises(RequestError, match=r"concepts.npz' cannot be read"):
        go("in", **DFF)
    assert len(go("in", **DFF, overwrite=True)) == 3


@pytest.mark.usefixtures("set_of_three")
def test_the_concepts_do_not_hang_on_batches_or_threads(go: Go) -> None:
    go("in", **DFF, save=("array",))
    go("in", **DFF, save=("array",), batch_size=1, workers=1, out="two")
    for name in "abc":
        one, two = (np.load(f"{out}/in/{name}.png.npy") for out in ("out", "two"))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("set_of_three")
def test_broken_pictures_are_passed_over(go: Go) -> None:
    Path("in/aa.png").write_text("no image")
    outcomes = go("in", **DFF)
    assert [bool(one.error) for [one] in outcomes] == [False, True, False, False]
    assert facts()["concepts"]["pictures"] == 3
    only = go("in/aa.png", **DFF, out="two")
    assert [bool(one.error) for [one] in only] == [True]


@pytest.mark.usefixtures("set_of_three")
def test_each_picture_may_have_concepts_of_its_own(go: Go) -> None:
    options = ("concepts=2", "over=picture")
    go("in", **{**DFF, "options": options})
    assert not Path("out/concepts.npz").exists()
    assert "concepts" not in facts()
    assert all(row["score"] == pytest.approx(1, abs=1e-3) for row in ledger())


def test_pictures_on_standard_input_are_refused(go: Go) -> None:
    with pytest.raises(RequestError, match="standard input arrive one by one") as caught:
        go("-", **DFF)
    assert "over=picture" in caught.value.hint


@pytest.mark.usefixtures("set_of_three")
def test_run_wide_strength(go: Go, paint: Paint, pixels) -> None:
    paint("in/d.png", (50, 0, 0))
    go("in", **DFF, normalize="run", save=("heatmap",))
    scale = facts()["scale"]
    assert scale == pytest.approx(250 / 255, rel=1e-2)
    bright, dim = (pixels(f"out/in/{name}.png.heatmap.png")[16, 4].astype(int).sum() for name in "ad")
    assert dim == pytest.approx(bright / 5, abs=6)


@pytest.mark.usefixtures("set_of_three")
def test_the_stream_in_python_has_the_same_concepts_in_all(tiny: str) -> None:
    found = list(
        camcli.explain(
            ["in"], model=tiny, device="cpu", batch_size=1, method="dff", options={"concepts": 3}, layer="stem"
        )
    )
    by_class: dict[str, set[int]] = {}
    for one in found:
        for concept in one.concepts:
            if concept.share > 0.05:
                by_class.setdefault(concept.classes[0].label, set()).add(concept.number)
    assert sorted(map(tuple, by_class.values())) == [(1,), (2,), (3,)]
    with pytest.raises(RequestError, match="come one by one"):
        camcli.explain(iter(["in"]), model=tiny, method="dff", options={"concepts": 3}, layer="stem")


# ---- what is drawn


TWO = np.zeros((2, 2, 2), np.float32)
TWO[0, :, 0], TWO[1, :, 1] = 4, 2
CONCEPTS = (
    Concept(1, 0.667, (ConceptClass(281, "tabby", 5.25), ConceptClass(282, "tiger cat", 3.0))),
    Concept(2, 0.333),
)


def picture():
    pixels = np.full((40, 40, 3), 100, np.uint8)
    preprocess = Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, (32, 32), "squash")
    return Picture(PictureSource(Path("a.jpg"), "a.jpg"), pixels, preprocess.view(40, 40))


def of_two(**more) -> Explanation:
    return Explanation(TWO, "dff", "layer4", None, "2 concepts", 0.8, None, concepts=CONCEPTS, **more)


def image(name, style=STYLE):
    return np.asarray(Image.open(io.BytesIO(OUTPUTS.load(name)(picture(), of_two(), style))))


def test_a_heatmap_has_the_concepts_colours_as_strong_as_they_are():
    heat = image("heatmap")
    assert tuple(heat[20, 2]) == concept_colour(1) == (230, 159, 0)
    np.testing.assert_allclose(heat[20, 37], np.array(concept_colour(2)) / 2, atol=1)
    assert tuple(image("heatmap", Style("inferno", 0.6, "run", 8.0))[20, 2]) == (115, 80, 0)


def test_an_overlay_has_the_concepts_colours_over_a_grey_picture():
    over = image("overlay").astype(float)
    np.testing.assert_allclose(over[20, 2], 0.6 * np.array(concept_colour(1)) + 0.4 * 100, atol=1)
    opacity = 0.6 * 0.5**0.75
    np.testing.assert_allclose(over[20, 37], opacity * np.array(concept_colour(2)) + (1 - opacity) * 100, atol=1.5)


def test_the_array_holds_all_concepts():
    np.testing.assert_array_equal(np.load(io.BytesIO(OUTPUTS.load("array")(picture(), of_two(), STYLE))), TWO)


def test_the_panel_has_a_legend():
    sheet = image("panel")
    for number in (1, 2):
        assert ((sheet == concept_colour(number)).all(2)).sum() >= panel.PATCH_SIDE**2
    assert panel._describe_classes(CONCEPTS[0]) == "tabby +5.2, tiger cat +3"
    assert [text for _, _, text in panel._heading(of_two())] == [
        "2 concepts",
        "they make up 80% of the layer's activations",
    ]
    tiles = [tile.caption for tile in panel._draw_tiles(picture(), of_two(), STYLE)]
    assert tiles == ["image", "overlay"]
    longer = replace(of_two(), concepts=(replace(CONCEPTS[0], classes=(ConceptClass(1, "W" * 900, 1.0),)), CONCEPTS[1]))
    edges = np.asarray(Image.open(io.BytesIO(OUTPUTS.load("panel")(picture(), longer, STYLE))))
    assert (edges[:, -panel.MARGIN + 4 :] == 255).all()


def test_what_the_model_did_not_see_has_no_concept():
    cropped = Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, (32, 32)).view(80, 40)
    wide = Picture(PictureSource(Path("a.jpg"), "a.jpg"), np.full((40, 80, 3), 100, np.uint8), cropped)
    heat = np.asarray(Image.open(io.BytesIO(OUTPUTS.load("heatmap")(wide, of_two(), STYLE))))
    assert set(np.unique(heat[:, :20])) == {draw.HATCH_GROUND, draw.HATCH_LINE}
    assert tuple(heat[20, 22]) == concept_colour(1)


def test_colours_stay_apart():
    every = [concept_colour(number) for number in range(1, 22)]
    assert len(set(every)) == 21
    assert concept_colour(22) == concept_colour(1)
    apart = [
        max(abs(a - b) for a, b in zip(one, other, strict=True)) for one in every for other in every if one != other
    ]
    assert min(apart) > 20


def test_concepts_are_json_and_back():
    outcome = camcli.Outcome(source="a", name="a", stamp="1", job="j", run="r", concepts=CONCEPTS)
    values = json.loads(outcome.as_line())
    assert values["concepts"][0] == {
        "number": 1,
        "share": 0.667,
        "classes": [
            {"index": 281, "label": "tabby", "rise": 5.25},
            {"index": 282, "label": "tiger cat", "rise": 3},
        ],
    }
    assert tuple(map(Concept.from_dict, values["concepts"])) == CONCEPTS


def test_a_network_may_have_its_labels(tiny: str) -> None:
    network = camcli.load(tiny)
    assert isinstance(network, Network)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    [[one], _] = Explainer(network, layers=["stem"], method="dff", options={"concepts": 3})(images)
    assert {spoken.label for concept in one.concepts for spoken in concept.classes} <= {"red", "green", "blue"}
