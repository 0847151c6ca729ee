"""Targets: which classes or channels of an image are explained."""

from pathlib import Path

import pytest
import torch
from labelled_scores import LABELS, SCORES

from camcli.base.errors import PictureError, RequestError
from camcli.engine.network import Network
from camcli.images.transform import Preprocess
from camcli.targets import count_top_channels, is_multi_target, resolve
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import OutputSpec

PICTURE = Path("a.jpg")


def of(labels: Labels, activation: str = "softmax", **more: object) -> Network:
    preprocess = Preprocess((4, 4), (0.0,) * 3, (1.0,) * 3, (4, 4), "squash")
    return Network("a network", torch.nn.Identity(), preprocess, labels, "random", "nowhere", activation, **more)


def chosen(*words: str, path: Path = PICTURE, scores: torch.Tensor = SCORES) -> list[int]:
    return list(resolve(words, of(LABELS))(path, scores))


# ---- what is said for all images


def test_predicted_is_the_greatest_score_and_of_equal_ones_the_first() -> None:
    assert chosen("predicted") == [2]
    assert chosen("predicted", scores=torch.tensor([1.0, 7.0, 7.0, 7.0, 0.0])) == [1]


def test_top_n_is_best_first_and_of_equal_scores_the_first() -> None:
    assert chosen("top:1") == [2]
    assert chosen("top:3") == [2, 1, 3]
    assert chosen("top:5") == [2, 1, 3, 0, 4]


def test_rank_n_is_the_nth_of_top_n_alone() -> None:
    assert [chosen(f"rank:{place}") for place in range(1, 6)] == [[2], [1], [3], [0], [4]]
    assert not is_multi_target("rank:2")  # as with `predicted`, no class in the names of files
    scores = torch.tensor([-torch.inf, 2.0, -torch.inf, -torch.inf, -torch.inf])  # a detector that found one class
    with pytest.raises(PictureError, match="has only 1 class, and none of rank 2"):
        chosen("rank:2", scores=scores)


@pytest.mark.parametrize(
    "word",
    ["rank:0", "rank:6", "rank", "rank:²", "top:0", "top:6", "top:-1", "top:x", "top:", "top", "top:2.5", "top:²"],
)
def test_a_top_that_cannot_be_is_refused_with_the_range(word: str) -> None:
    with pytest.raises(RequestError, match="not a number of classes") as caught:
        resolve([word], of(LABELS))
    assert "from 1 to 5" in caught.value.hint


@pytest.mark.parametrize("word", ["2", "tabby", "Tabby Cat", "tabby, tabby cat", "n00000003", "class:tabby", "tab"])
def test_a_class_by_index_name_part_and_wordnet_id(word: str) -> None:
    assert chosen(word) == [2]


def test_a_class_whose_name_is_a_rows_can_still_be_said() -> None:
    labels = Labels(("top", "folder", "predicted"))
    assert list(resolve(["class:folder"], of(labels))(PICTURE, SCORES[:3])) == [1]
    assert list(resolve(["class:predicted"], of(labels))(PICTURE, SCORES[:3])) == [2]


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("crane", "ambiguous: 2 classes", "1 crane\n3 crane"),
        ("cat", "ambiguous: 2 classes", "2 tabby, tabby cat\n4 tiger cat"),
        ("5", "there is no class 5", "5 classes, counted from 0 to 4"),
        ("taby", "there is no class 'taby'", "2 tabby, tabby cat"),
        ("", "an empty name", "0 to 4"),
        ("predicted:2", "takes no argument", "top:N"),
        ("rank2", "there is no class 'rank2'", "did you mean 'rank:2'?"),
        ("nothing", "there is no class 'nothing'", "rank:2 the second of them alone"),
        ("folder:x", "takes no argument", ""),
    ],
)
def test_what_names_no_class_or_several_is_refused_with_the_candidates(word: str, message: str, hint: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        resolve([word], of(LABELS))
    assert hint in caught.value.hint


def test_several_targets_keep_their_order_and_each_class_comes_once() -> None:
    assert chosen("4", "predicted", "tabby", "top:2") == [4, 2, 1]


# ---- every class that is probable


def test_all_above_a_probability_is_best_first() -> None:
    scores = torch.tensor([0.0, 2.0, -1.0, 0.1, 2.5])  # sigmoid: 0.5, 0.88, 0.27, 0.52, 0.92
    target = resolve(["all>0.5"], of(LABELS, "sigmoid"))
    assert list(target(PICTURE, scores)) == [4, 1, 3]
    assert list(resolve(["all > 0.9"], of(LABELS, "sigmoid"))(PICTURE, scores)) == [4]
    assert list(resolve(["all>2"], of(LABELS, "none"))(PICTURE, scores)) == [4]
    # Of a softmax at most one is above a half.
    assert list(resolve(["all>0.5"], of(LABELS))(PICTURE, SCORES)) == [2]
    assert is_multi_target("all>0.5")


def test_one_logit_has_a_sigmoid_whatever_the_model_says() -> None:
    target = resolve(["all>0.5"], of(Labels(("ill",))))
    assert list(target(PICTURE, torch.tensor([0.1]))) == [0]
    with pytest.raises(PictureError, match=r"no class has a probability above 0.5 here: 'ill' has 0.475"):
        target(PICTURE, torch.tensor([-0.1]))


@pytest.mark.parametrize("word", ["all>", "all>x", "all>1", "all>-0.1", "all>nan", "all>inf", "all>0.5.5"])
def test_a_threshold_that_no_probability_has_is_refused(word: str) -> None:
    with pytest.raises(RequestError, match="needs a probability as threshold") as caught:
        resolve([word], of(LABELS, "sigmoid"))
    assert "all>0.5" in caught.value.hint


def test_boxes_have_a_threshold_of_their_own() -> None:
    with pytest.raises(RequestError, match="one probability per class for an image") as caught:
        resolve(["all>0.5"], of(LABELS, output_spec=OutputSpec("detect")))
    assert "--min-score" in caught.value.hint


# ---- channels


def test_channels_by_their_numbers_each_once() -> None:
    features = Labels.numbered(5)
    assert list(resolve(["channel:3, 1,3", "channel:0"], of(features, headless=True))(PICTURE, SCORES)) == [3, 1, 0]
    assert is_multi_target("channel:3,1")
    assert not is_multi_target("channel:3")
    # Of a layer nobody knows yet how many it has.
    assert list(resolve(["channel:99"], of(features))(PICTURE, SCORES)) == [99]
    with pytest.raises(RequestError, match="there is no channel 5") as caught:
        resolve(["channel:5"], of(features, headless=True))
    assert "5 features, counted from 0 to 4" in caught.value.hint


@pytest.mark.parametrize("word", ["channel:", "channel:x", "channel:1,", "channel:-1", "channel:1-3", "channel:1.0"])
def test_what_is_no_number_names_no_channel(word: str) -> None:
    with pytest.raises(RequestError, match="does not name channels by index"):
        resolve([word], of(LABELS))


def test_the_strongest_channels_of_a_class() -> None:
    assert count_top_channels(["channels:top:5"]) == 5
    assert count_top_channels(["channels:top:5:tabby", "channels:top:5:top:2"]) == 5
    assert count_top_channels(["tabby", "predicted"]) == count_top_channels([]) == 0
    assert chosen("channels:top:5") == [2]
    assert chosen("channels:top:5:tiger cat", "channels:top:5:top:2") == [4, 2, 1]
    assert is_multi_target("channels:top:5:top:2")
    assert not is_multi_target("channels:top:5")


@pytest.mark.parametrize("words", [("channels:top:5", "tabby"), ("channels:top:5", "channels:top:4:tabby")])
def test_channels_and_classes_do_not_go_together(words: tuple[str, ...]) -> None:
    with pytest.raises(RequestError, match="select the layer's channels in different ways"):
        count_top_channels(words)


@pytest.mark.parametrize("word", ["channels:", "channels:5", "channels:top", "channels:top:0", "channels:top:x"])
def test_how_many_channels_must_be_said(word: str) -> None:
    with pytest.raises(RequestError, match="does not give a number of channels"):
        count_top_channels([word])


# ---- by folder


@pytest.mark.parametrize(
    ("path", "index"),
    [("val/n00000005/x.jpg", 4), ("val/tabby/x.jpg", 2), ("2/x.jpg", 2), ("val/tiger_cat/x.jpg", 4)],
)
def test_the_folder_names_the_class(path: str, index: int) -> None:
    assert chosen("folder", path=Path(path)) == [index]


def test_a_picture_in_the_current_folder_has_that_folders_class(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "tabby").mkdir()
    monkeypatch.chdir(tmp_path / "tabby")
    assert chosen("folder", path=Path("x.jpg")) == [2]


@pytest.mark.parametrize(
    "path", ["../x.jpg", "./../x.jpg", "../deeper/../x.jpg", "deepest/../../x.jpg", "../../tabby/./x.jpg"]
)
def test_a_folder_is_the_one_that_dots_lead_to(path: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "tabby/deeper/deepest").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "tabby/deeper")
    assert chosen("folder", path=Path(path)) == [2]


def test_behind_a_link_dots_lead_to_the_folder_around_what_it_leads_to(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "tabby/inner").mkdir(parents=True)
    (tmp_path / "crane").mkdir()
    (tmp_path / "crane/link").symlink_to(tmp_path / "tabby/inner")
    monkeypatch.chdir(tmp_path / "crane")
    assert chosen("folder", path=Path("link/../x.jpg")) == [2]
    # A link itself is a folder of its own.
    (tmp_path / "crane/tabby").symlink_to(tmp_path)
    assert chosen("folder", path=Path("tabby/x.jpg")) == [2]


def test_a_folder_that_names_no_class_or_several_fails_its_pictures_only_and_each_time() -> None:
    target = resolve(["folder"], of(LABELS))
    for _ in range(2):
        with pytest.raises(PictureError, match=r"folder 'crane' names no class: .* ambiguous"):
            target(Path("crane/x.jpg"), SCORES)
        with pytest.raises(PictureError, match="folder 'zebra' names no class"):
            target(Path("zebra/x.jpg"), SCORES)
    assert target(Path("tabby/x.jpg"), SCORES) == [2]


def test_a_folder_is_not_named_by_a_part_of_a_name() -> None:
    target = resolve(["folder"], of(Labels(("slot, one-armed bandit", "cat"))))
    with pytest.raises(PictureError, match="folder 'one' names no class: it is only a part"):
        target(Path("one/x.jpg"), SCORES)
    assert target(Path("one-armed bandit/x.jpg"), SCORES) == [0]
