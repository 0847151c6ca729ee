"""Errors keep what they say, and name the nearest of what there is."""

import pickle

import pytest

from camcli.base.errors import NothingFoundError, PictureError, RequestError, did_you_mean, find_nearest


@pytest.mark.parametrize(("kind", "code"), [(RequestError, 2), (PictureError, 1), (NothingFoundError, 3)])
def test_an_error_keeps_message_hint_and_exit_code_through_a_pickle(kind: type, code: int) -> None:
    error = pickle.loads(pickle.dumps(kind("what", "how")))  # as it crosses to another process
    assert (type(error), error.message, error.hint, str(error), error.exit_code) == (kind, "what", "how", "what", code)


def test_the_nearest_names_come_first_whatever_their_case() -> None:
    known = ["ResNet18", "resnet50", "resnext50", "vgg16"]
    assert find_nearest("Resnet5", known, limit=1) == ["resnet50"]
    assert find_nearest("RESNET18", known)[0] == "ResNet18"
    assert find_nearest("zebra", known) == []


def test_a_part_of_a_name_is_near_shortest_first() -> None:
    assert find_nearest("vit", ["a_long_vit_name", "my_vit", "swin"]) == ["my_vit", "a_long_vit_name"]


def test_an_empty_word_is_near_to_nothing() -> None:
    assert find_nearest("", ["a", "b"]) == []
    assert did_you_mean("", ["a"]) == ""


def test_the_question_reads_like_one() -> None:
    assert did_you_mean("zebra", ["vgg16"]) == ""
    assert did_you_mean("gradcm", ["gradcam"]) == "did you mean 'gradcam'?"
    assert did_you_mean("alphabet", ["alphabetically", "alphabets", "alphabetic"]) == (
        "did you mean 'alphabets', 'alphabetic' or 'alphabetically'?"
    )
