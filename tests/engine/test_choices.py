"""Classes as people have them by number: of Python, of NumPy, tensors; and what is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import Small, pictures, seeded
from typer.testing import CliRunner

import camcli
from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.engine.choose import as_selector, as_tuple, parse_classes, select_detected, select_highest

SCORES = torch.zeros(10)


def chosen(targets: Any, images: int = 2) -> list[list[int]]:
    choose = as_selector(targets, images)
    assert choose is not None
    return [list(parse_classes(choose(row, SCORES))) for row in range(images)]


@pytest.mark.parametrize(
    "targets",
    [
        3,
        np.int64(3),
        np.array(3),
        torch.tensor(3),
        [3, 3],
        (np.int32(3), np.uint8(3)),
        [torch.tensor(3), np.array(3)],
        [[3], np.array([3])],
        [torch.tensor([3]), (3,)],
        np.array([3, 3]),
        torch.tensor([3, 3], dtype=torch.int16),
        torch.tensor([[3], [3]]),
        lambda row, scores: 3,
        lambda row, scores: np.int64(3),
        lambda row, scores: torch.tensor([3]),
        iter([3, 3]),
    ],
)
def test_a_class_by_any_whole_number(targets: Any) -> None:
    assert chosen(targets) == [[3], [3]]


def test_several_classes_an_image_may_be_of_different_number() -> None:
    assert chosen([np.array([1, 2]), 3]) == [[1, 2], [3]]
    assert chosen(torch.tensor([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
    assert chosen([[], 3]) == [[], [3]]


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (3.0, r"3.0 \(float\) is not a class index"),
        (True, r"True \(bool\)"),
        ("tabby", r"'tabby' \(str\)"),
        (["tabby", "crane"], r"'tabby' \(str\)"),
        ([3, None], r"None \(NoneType\)"),
        (np.array([0.0, 1.0]), "0.0"),
        (torch.tensor([[0.0, 1.0], [1.0, 0.0]]), r"0.0 \(float32\)"),
        (np.array([[True, False], [False, True]]), "True"),
        (object(), r"object\) is not a class"),
    ],
)
def test_what_is_no_number_of_a_class_is_refused(targets: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        as_selector(targets, 2)
    assert "argmax(1)" in caught.value.hint


def test_through_the_explainer() -> None:
    explainer = camcli.Explainer(seeded(Small()), layers="conv1")
    images = pictures(2)
    [[one], [two]] = explainer(images, [np.int64(1), torch.tensor(2)])
    assert (one.index, two.index) == (1, 2)
    with pytest.raises(RequestError, match="there is no class -1"):
        explainer(images, -1)
    with pytest.raises(RequestError, match=r"0.5 \(float\)"):
        explainer(images, lambda row, scores: 0.5)


def test_a_string_is_not_its_letters() -> None:
    assert as_tuple("layer4") == ("layer4",)
    assert as_tuple(1.5) == (1.5,)
    assert as_tuple(["a", "b"]) == ("a", "b")
    job = camcli.Job()
    for name, value in {"layers": "layer4", "target": "tabby", "save": ["array"]}.items():
        object.__setattr__(job, name, value)
    job.__post_init__()
    assert (job.layers, job.target, job.save) == (("layer4",), ("tabby",), ("array",))
    assert camcli.Explainer(seeded(Small()), layers="conv1").layers == ("conv1",)


def test_margins_over_numpy_integers() -> None:
    images = pictures(1)
    maps = [
        camcli.Explainer(seeded(Small()), layers="conv1", score="margin", versus=versus)(images, 2)[0][0].map
        for versus in (1, np.int64(1), [1], torch.tensor([1]))
    ]
    for one in maps[1:]:
        np.testing.assert_array_equal(one, maps[0])


def test_through_the_shell_of_python(tiny: str, sample_images: Path) -> None:
    picture = sample_images / "coffee.png"
    for target in (1, np.int64(1), np.array(1), torch.tensor(1), [np.int64(1)], np.array([1]), ["1"]):
        [one] = camcli.explain(picture, model=tiny, layer="stem", target=target)
        assert one.index == 1


@pytest.mark.parametrize(
    "words", [["--weights", "{}.pth"], ["--wrap", "{}.py:f"], ["-m", "{}.py:f"], ["--out", "{}"], ["--labels", "{}"]]
)
def test_a_name_too_long_for_any_file_is_told(here: Path, sample_images: Path, words: list[str]) -> None:
    long = [word.format("x" * 300) for word in words]
    done = CliRunner().invoke(app, ["explain", str(sample_images / "coffee.png"), *long])
    assert done.exit_code == 2
    assert "too long" in done.stderr.lower()
    assert isinstance(done.exception, SystemExit)


def test_in_a_list_it_is_that_pictures_failure(here: Path, sample_images: Path, tiny: str) -> None:
    (here / "list.txt").write_text(f"{sample_images / 'coffee.png'}\n{'x' * 300}.jpg\n")
    done = CliRunner().invoke(app, ["explain", "@list.txt", "-m", tiny, "-l", "stem"])
    assert done.exit_code == 1, done.stderr
    assert "1 done, 1 failed" in done.stderr


def test_one_target_in_a_list_is_that_of_one_image_or_of_images_with_one_prediction() -> None:
    shared = as_selector([1], 2, shares_prediction=True)
    assert shared is not None
    assert shared(1, torch.zeros(3)) == (1,)
    with pytest.raises(RequestError, match="1 targets were given for 2 images"):
        as_selector([1], 2)


def test_what_is_not_in_an_image_is_not_predicted_and_what_is_comes_by_its_score() -> None:
    gone = -torch.inf
    assert select_highest(0, torch.tensor([gone, gone])) == []
    assert select_highest(0, torch.tensor([gone, -2.0, 3.0])) == [2]
    assert select_detected(0, torch.tensor([1.0, gone, 3.0, 2.0])) == [2, 3, 0]
