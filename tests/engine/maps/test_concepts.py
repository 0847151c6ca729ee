"""Concepts through the explainer: the classes they speak for, one explanation for each image."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from concepts import alone, drawn
from networks import Pooled, Small, named, pictures, untouched
from shared import Bring
from torch import nn

import camcli
from camcli import Explainer, PictureError, RequestError
from camcli.engine.explanation import Concept
from camcli.engine.maps import concepts
from camcli.engine.maps.concepts import pick_evenly, put_even_sample_first, sample_cells
from camcli.methods.concept import dff, dff_directions
from camcli.methods.factors import factorize


def explained(model, layers=("last",), **options):
    return Explainer(model, layers=layers, method="dff", options={"concepts": 2, **options})


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


# ---- the classes that a concept matters to


def test_importance_is_for_the_classes_that_are_explained():
    model, images = Pooled(classes=5), pictures(3, 16)
    explainer = explained(model, importance=16)

    def select(row, scores):
        if row == 2:
            raise PictureError("it has no row")
        return [[4], [1, 0]][row]

    found = explainer.results(images, select)
    assert [str(one) for one in found[2]] == ["it has no row"]
    with pytest.raises(RequestError, match="there is no class 9"):
        explainer(images, 9)
    assert [[one.index for one in concept.importances] for concept in found[0][0].concepts] == [[4], [4]]
    assert [[one.index for one in concept.importances] for concept in found[1][0].concepts] == [[1, 0], [1, 0]]
    # Behind pooling and a linear layer the scores are sums, whose indices sum to 1, as far as so few designs tell.
    for number in range(2):
        assert sum(concept.importances[number].total for concept in found[1][0].concepts) == pytest.approx(1, abs=0.25)
    # Of no class in particular it is the predicted one.
    [one] = explainer.results(images[:1])[0]
    assert one.concepts[0].importances[0].index == int(model(images[:1]).argmax())
    assert Concept.from_dict(json.loads(json.dumps(asdict(one.concepts[0])))) == one.concepts[0]


def test_importance_for_a_score_that_no_concept_changes_is_undefined():
    model = Pooled()
    with torch.no_grad():
        model.fc.weight[1] = 0
    [[one]] = explained(model, importance=8)(pictures(1, 16), 1)
    assert [concept.importances[0].total for concept in one.concepts] == [None, None]


def test_importance_needs_a_head():
    with pytest.raises(RequestError, match="importance of concepts needs the scores of classes"):
        explained(named(Pooled(), 3, headless=True), importance=8)(pictures(1, 16))


def test_importance_was_not_in_earlier_records():
    assert Concept.from_dict({"number": 1, "share": 0.5, "classes": []}) == Concept(1, 0.5)


# ---- where there are none


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
    assert explainer.describe_target() == "the layer's activations as concepts; no class"
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
    assert torch.equal(sample_cells(act, 2), act.flatten(2).mT)
    monkeypatch.setattr(concepts, "MAX_VALUES", 3 * 2 * 10)
    some = sample_cells(act, 2)
    assert some.shape == (2, 10, 3)
    assert torch.equal(some, torch.cat([sample_cells(act[:1], 2), sample_cells(act[1:], 2)]))
