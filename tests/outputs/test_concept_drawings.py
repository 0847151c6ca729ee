"""Concepts drawn: their colours, the panel's legend, and their line of JSON."""

import io
import json
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

import camcli
from camcli import Explainer, Explanation, Network
from camcli.engine.explanation import Concept, ConceptClass, ConceptImportance
from camcli.images.source import Picture, PictureSource
from camcli.images.transform import Preprocess
from camcli.outputs import OUTPUTS, draw, panel
from camcli.outputs.style import Style, concept_colour

STYLE = Style("inferno", 0.6, "image")

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
    return Picture(PictureSource("a.jpg", "a.jpg"), pixels, preprocess.view(40, 40))


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
    ground = 100 * (1 - 0.6 * 0.25)  # muted by a quarter of alpha
    np.testing.assert_allclose(over[20, 2], 0.6 * np.array(concept_colour(1)) + 0.4 * ground, atol=1)
    opacity = 0.6 * 0.5**0.75
    np.testing.assert_allclose(over[20, 37], opacity * np.array(concept_colour(2)) + (1 - opacity) * ground, atol=1.5)


def test_the_array_holds_all_concepts():
    np.testing.assert_array_equal(np.load(io.BytesIO(OUTPUTS.load("array")(picture(), of_two(), STYLE))), TWO)


def test_the_panel_has_a_legend():
    sheet = image("panel")
    for number in (1, 2):
        assert ((sheet == concept_colour(number)).all(2)).sum() >= panel.PATCH_SIDE**2
    assert panel.describe_classes(CONCEPTS[0]) == "tabby +5.2, tiger cat +3"
    important = (ConceptImportance(281, "tabby", 0.424), ConceptImportance(967, "espresso", None))
    assert (
        panel.describe_classes(replace(CONCEPTS[0], importances=important)) == "42% of tabby: tabby +5.2, tiger cat +3"
    )
    assert panel.describe_classes(replace(CONCEPTS[1], importances=important)) == "42% of tabby"
    assert [text for _, _, text in panel.heading(of_two())] == [
        "2 concepts",
        "they make up 80% of the layer's activations",
    ]
    tiles = [tile.caption for tile in panel.draw_tiles(picture(), of_two(), STYLE)]
    assert tiles == ["image", "overlay"]
    longer = replace(of_two(), concepts=(replace(CONCEPTS[0], classes=(ConceptClass(1, "W" * 900, 1.0),)), CONCEPTS[1]))
    edges = np.asarray(Image.open(io.BytesIO(OUTPUTS.load("panel")(picture(), longer, STYLE))))
    assert (edges[:, -panel.MARGIN + 4 :] == 255).all()


def test_what_the_model_did_not_see_has_no_concept():
    cropped = Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, (32, 32)).view(80, 40)
    wide = Picture(PictureSource("a.jpg", "a.jpg"), np.full((40, 80, 3), 100, np.uint8), cropped)
    heat = np.asarray(Image.open(io.BytesIO(OUTPUTS.load("heatmap")(wide, of_two(), STYLE))))
    assert set(np.unique(heat[:, :20])) == {draw.UNSEEN_GREY}
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
        "importances": [],
    }
    assert tuple(map(Concept.from_dict, values["concepts"])) == CONCEPTS


def test_a_network_may_have_its_labels(tiny: str) -> None:
    network = camcli.load(tiny)
    assert isinstance(network, Network)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    [[one], _] = Explainer(network, layers=["stem"], method="dff", options={"concepts": 3})(images)
    assert {spoken.label for concept in one.concepts for spoken in concept.classes} <= {"red", "green", "blue"}
