import json
import os
from pathlib import Path

import pytest
import torch

from camcli.base.errors import PictureError, RequestError
from camcli.engine.network import Network
from camcli.images.transform import Preprocess
from camcli.targets import count_top_channels, is_multi_target, resolve
from camcli.targets.labels import Labels
from camcli.targets.named import TargetManifest
from camcli.targets.readers.spec import OutputSpec

LABELS = Labels(
    ("tench, Tinca tinca", "crane", "tabby, tabby cat", "crane", "tiger cat"),
    ("n00000001", "n00000002", "n00000003", "n00000004", "n00000005"),
)
#                      0    1    2    3    4
SCORES = torch.tensor([0.5, 3.0, 9.0, 3.0, -1.0])
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


@pytest.mark.parametrize("word", ["top:0", "top:6", "top:-1", "top:x", "top:", "top", "top:2.5", "top:²"])
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


# ---- from a file


@pytest.fixture
def photos(here: Path) -> Path:
    for name in ("photos/a.jpg", "photos/b.jpg", "photos/in/c.jpg", "d, e.jpg"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(b"")
    return here


def listed(text: str, file: str = "t.csv", folders: tuple[str, ...] = ()) -> TargetManifest:
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text(text, encoding="utf-8")
    return TargetManifest(Path(file), LABELS, [Path(folder) for folder in folders])


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    "text",
    [
        "photos/a.jpg,tabby\nphotos/b.jpg,4\n",
        "picture,target\nphotos/a.jpg,tabby\nphotos/b.jpg,4\n",
        "\ufeffFilename,Label\r\nphotos/a.jpg,tabby\r\n\r\nphotos/b.jpg, tiger cat\r\n",
        "class,split,path\ntabby,val,photos/a.jpg\nn00000005,val,photos/b.jpg\n",
        'photos/a.jpg,"tabby, tabby cat"\n"photos/b.jpg", "4"\n',
    ],
)
def test_csv_with_and_without_a_heading(text: str) -> None:
    target = listed(text)
    assert target(Path("photos/a.jpg"), SCORES) == [2]
    assert target(Path("photos/b.jpg"), SCORES) == [4]
    assert target.unmatched == []


def test_under_a_heading_other_columns_are_no_targets_and_without_one_all_are(photos: Path) -> None:
    assert listed("picture,target,split\nphotos/a.jpg,2,val\n")(Path("photos/a.jpg"), SCORES) == [2]
    assert listed("photos/a.jpg,2,4,0\n")(Path("photos/a.jpg"), SCORES) == [2, 4, 0]
    assert listed("photos/a.jpg,2\nphotos/b.jpg,1\nphotos/a.jpg,0\n")(Path("photos/a.jpg"), SCORES) == [2, 0]


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("file", ["t.jsonl", "t.ndjson", "T.JSONL"])
def test_jsonl_with_one_target_or_several(file: str) -> None:
    rows = [{"picture": "photos/a.jpg", "target": "tabby"}, {"picture": "d, e.jpg", "target": [4, "tench"]}]
    target = listed("\n".join(map(json.dumps, rows)) + "\n\n", file)
    assert target(Path("photos/a.jpg"), SCORES) == [2]
    assert target(Path("d, e.jpg"), SCORES) == [4, 0]


def test_other_line_ends_within_a_name_end_no_line(photos: Path) -> None:
    (photos / "f\u2028g.jpg").write_bytes(b"")
    assert listed('{"picture": "f\u2028g.jpg", "target": 2}\r\n', "t.jsonl")(Path("f\u2028g.jpg"), SCORES) == [2]
    assert listed("f\u2028g.jpg,2\n")(Path("f\u2028g.jpg"), SCORES) == [2]


def test_a_picture_is_found_from_here_from_the_files_folder_and_from_the_folders_given(photos: Path) -> None:
    assert listed("a.jpg,2\n", "photos/t.csv")(Path("photos/a.jpg"), SCORES) == [2]
    assert listed("c.jpg,2\n", folders=("photos/in",))(Path("photos/in/c.jpg"), SCORES) == [2]
    assert listed(f"{photos}/photos/a.jpg,2\n")(Path("photos/a.jpg"), SCORES) == [2]
    assert listed("photos/a.jpg,2\n")(photos / "photos" / "a.jpg", SCORES) == [2]
    assert listed("./photos/in/../a.jpg,2\n")(Path("photos/../photos/a.jpg"), SCORES) == [2]


def test_a_link_is_a_picture_of_its_own(photos: Path) -> None:
    (photos / "link.jpg").symlink_to("photos/a.jpg")
    target = listed("link.jpg,2\n")
    assert target(Path("link.jpg"), SCORES) == [2]
    with pytest.raises(PictureError, match="lists no target"):
        target(Path("photos/a.jpg"), SCORES)


def test_a_picture_that_is_not_listed_fails_and_is_not_guessed(photos: Path) -> None:
    with pytest.raises(PictureError, match=r"t\.csv lists no target for this image"):
        listed("photos/a.jpg,2\n")(Path("photos/b.jpg"), SCORES)


def test_what_is_listed_and_not_among_the_pictures_is_surplus(photos: Path) -> None:
    target = listed("photos/a.jpg,2\nnowhere.jpg,1\nphotos/b.jpg,2\n")
    assert target.unmatched == ["nowhere.jpg"]
    unused = target.find_unused(iter([Path("photos/a.jpg")]))
    assert unused == ["nowhere.jpg", str(photos / "photos" / "b.jpg")]


def test_a_name_that_two_folders_have_is_refused(photos: Path) -> None:
    (photos / "a.jpg").write_bytes(b"")
    with pytest.raises(RequestError, match=r"t\.csv, line 2: 'a.jpg' can be 2 images") as caught:
        listed("photos/b.jpg,2\na.jpg,2\n", folders=("photos",))
    assert f"{photos}/a.jpg, {photos}/photos/a.jpg" in caught.value.message
    assert "whole path" in caught.value.hint


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("t.csv", "photos/a.jpg,2\nphotos/b.jpg,zebra\n", r"line 2 \('photos/b.jpg'\): there is no class 'zebra'"),
        ("t.csv", "photos/a.jpg,crane\n", r"line 1 \('photos/a.jpg'\): 'crane' is ambiguous"),
        ("t.csv", "photos/a.jpg,7\n", "line 1 .*: there is no class 7"),
        ("t.csv", "photos/a.jpg,2\n\nphotos/b.jpg\n", "line 3: an image and its target are needed"),
        ("t.csv", "photos/a.jpg,2\n,3\n", "line 2: an image and its target are needed"),
        ("t.csv", 'photos/a.jpg,2\n"photos"/b.jpg,2\n', "line 2 is not CSV"),
        ("t.csv", 'photos/a.jpg,2\n"photos/b.jpg,2\n', "line 2 is not CSV"),
        ("t.csv", "image,klass\nphotos/a.jpg,2\n", "line 1 .*: there is no class 'klass'"),
        ("t.csv", "", "lists nothing"),
        ("t.csv", "picture,target\n", "lists nothing"),
        ("t.jsonl", '{"picture": "photos/a.jpg", "target": 2}\n{"picture"', "line 2 is not JSON"),
        ("t.jsonl", '["photos/a.jpg", 2]', "line 1 is not an object"),
        ("t.jsonl", '{"picture": "photos/a.jpg"}', "line 1: an image and its target are needed"),
        ("t.jsonl", '{"picture": "photos/a.jpg", "target": []}', "line 1: an image and its target are needed"),
        ("t.jsonl", '{"picture": "photos/a.jpg", "target": null}', "line 1: an image is a path"),
        ("t.jsonl", '{"picture": "photos/a.jpg", "target": true}', "line 1: an image is a path"),
        ("t.jsonl", '{"picture": "photos/a.jpg", "target": 2.0}', "line 1: an image is a path"),
        ("t.jsonl", '{"picture": 3, "target": 2}', "line 1: an image is a path"),
    ],
)
def test_a_row_that_is_wrong_is_named_by_its_line(file: str, text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        listed(text, file)
    assert file in caught.value.message


def test_a_file_that_is_no_text_or_not_there_is_refused(here: Path) -> None:
    (here / "t.csv").write_bytes(b"caf\xe9.jpg,2\n")
    with pytest.raises(RequestError, match="not UTF-8"):
        TargetManifest(Path("t.csv"), LABELS)
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        TargetManifest(Path("nowhere.csv"), LABELS)


def test_a_file_of_the_run_that_json_can_only_escape_is_still_found(photos: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (photos / name).write_bytes(b"")
    assert listed(json.dumps({"picture": name, "target": 2}), "t.jsonl")(Path(name), SCORES) == [2]
