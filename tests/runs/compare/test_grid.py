"""What is in rows, in columns and on sheets; words that name several things."""

import pytest

from camcli.base.errors import RequestError
from camcli.runs.compare import CompareJob, expand_targets, split_layers
from camcli.runs.compare.grid import Grid, arrange
from camcli.runs.job.job import Job

ONE = {axis: ["x"] for axis in ("models", "scales", "targets", "prompts", "layers", "methods")}


def grid(**several: int) -> Grid:
    return Grid({**ONE, **{axis: [f"{axis}{number}" for number in range(count)] for axis, count in several.items()}})


@pytest.mark.parametrize(
    ("several", "images", "given", "expected"),
    [
        ({"methods": 2}, 1, {}, ("images", "methods", "scales")),
        ({"methods": 2}, 3, {}, ("images", "methods", "scales")),
        ({}, 3, {}, ("images", "methods", "scales")),
        ({"models": 2}, None, {}, ("images", "models", "scales")),
        ({"methods": 2, "layers": 2}, 1, {}, ("layers", "methods", "images")),
        ({"methods": 2, "models": 2}, 1, {}, ("models", "methods", "images")),
        ({"methods": 2, "layers": 2}, 3, {}, ("layers", "methods", "images")),
        ({"methods": 2, "layers": 2}, 1, {"rows": "methods"}, ("methods", "layers", "images")),
        ({"methods": 2, "layers": 2}, 3, {"sheets": "layers"}, ("images", "methods", "layers")),
        ({"methods": 2, "layers": 2, "targets": 2}, 1, {"sheets": "targets"}, ("layers", "methods", "targets")),
        ({"methods": 2}, 3, {"columns": "images"}, ("methods", "images", "scales")),
    ],
)
def test_two_things_are_in_rows_and_columns(several, images, given, expected):
    found = arrange(CompareJob(job=Job(), **given), grid(**several), images)
    assert (found.rows, found.columns, found.sheets) == expected


def test_a_refusal_says_what_to_fix():
    with pytest.raises(RequestError) as caught:
        arrange(CompareJob(job=Job()), grid(methods=2, layers=3, models=2), 5)
    assert caught.value.message.startswith("4 things have several values (5 images, 3 layers, 2 models, 2 methods)")
    assert caught.value.hint.startswith("fix one of them: name one image; or one --layer")
    assert "--sheets" not in caught.value.hint


def test_places_and_numbers_of_maps_are_each_others_inverse():
    made = grid(models=2, layers=3, methods=2)
    assert len(made) == 12
    assert [made.find(place) for place in made.places] == list(range(12))
    assert made.name(7) == "methods1, layers0, models1"
    assert all(
        sum(made.places[one][axis] != made.places[other][axis] for axis in ONE) == 1 for one, other in made.list_pairs()
    )
    assert made.name_pair(0, 1) == ("methods0", "methods1", "layers0, models0")


def test_targets_are_expanded_into_single_classes():
    assert [*expand_targets(("top:2", "tabby", "channel:1, 5"))] == [
        "rank:1",
        "rank:2",
        "tabby",
        "channel:1",
        "channel:5",
    ]
    for word in ("all", "all>0.5", "channels:top:2", "top:x"):
        with pytest.raises(RequestError, match="any number of classes"):
            [*expand_targets((word,))]


def test_layers_are_split_at_commas_outside_of_brackets():
    assert split_layers(["layer3,layer4", "blocks[-3:].norm1, x[1,2].y"]) == [
        "layer3",
        "layer4",
        "blocks[-3:].norm1",
        "x[1,2].y",
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"model": ("a", "b")}, [("a", ""), ("b", "")]),
        ({"model": ("a", "a")}, [("a", "")]),
        ({"model": ("a", "one.pt", "b")}, [("a", ""), ("a", "one.pt"), ("b", "")]),
        ({"model": ("a",), "weights": ("pretrained", "x.pth")}, [("a", ""), ("a", "x.pth")]),
        ({"model": ("a", "b"), "weights": ("x", "y")}, [("a", "x"), ("b", "y")]),
        ({"model": ("a", "b"), "weights": ("random",)}, [("a", "random"), ("b", "random")]),
    ],
)
def test_models_and_checkpoints_go_together(given, expected):
    assert CompareJob(job=Job(), **given).networks == expected
