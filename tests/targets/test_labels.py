"""A person's word becomes one class, or the candidates are named."""

import json
from pathlib import Path

import pytest
from timm.data import ImageNetInfo

from camcli.base.errors import RequestError
from camcli.targets import labels
from camcli.targets.labels import Labels

INFO = ImageNetInfo("imagenet-1k")
IMAGENET = Labels(tuple(INFO.label_descriptions()), tuple(INFO.label_names()))


def test_a_class_has_a_short_name_and_an_entry():
    assert IMAGENET.short(281) == "tabby"
    assert IMAGENET.entry(281) == "281 tabby, tabby cat"
    assert len(IMAGENET) == 1000


@pytest.mark.parametrize(
    ("word", "index"),
    [
        ("281", 281),
        ("index:281", 281),
        ("n02123045", 281),
        ("N02123045", 281),
        ("tabby, tabby cat", 281),
        ("tabby cat", 281),
        ("Tabby Cat", 281),
        ("tabby_cat", 281),
        (" tabby ", 281),
        ("name:tabby", 281),
        ("espresso", 967),  # a whole name, though "espresso maker" holds it too
        ("maker", 550),  # a whole word of one name only
        ("tank suit", 639),
        ("hen", 8),  # a whole name, though "hen-of-the-woods" holds the word
        ("tripo", 872),  # within one name only
        ("0", 0),
        ("999", 999),
    ],
)
def test_words_that_mean_one_class(word, index):
    assert IMAGENET.find(word) == index


def test_every_class_is_found_by_its_wordnet_id_and_its_number():
    assert [IMAGENET.find(name) for name in IMAGENET.wordnet[::37]] == list(range(0, 1000, 37))
    assert [IMAGENET.find(str(index)) for index in range(0, 1000, 37)] == list(range(0, 1000, 37))


@pytest.mark.parametrize(
    ("word", "candidates"),
    [
        ("crane", ["134 crane", "517 crane"]),  # the bird and the machine have the same name
        ("maillot", ["638 maillot", "639 maillot, tank suit"]),  # a whole name, and a synonym of another
        ("grass snake", ["55 green snake, grass snake", "57 garter snake, grass snake"]),
    ],
)
def test_a_word_that_means_several_classes_lists_them(word, candidates):
    with pytest.raises(RequestError, match="ambiguous") as caught:
        IMAGENET.find(word)
    assert caught.value.hint.splitlines()[1:] == candidates


def test_a_long_list_of_candidates_says_how_many_more():
    with pytest.raises(RequestError, match=r"'terrier' is ambiguous: (\d+) classes") as caught:
        IMAGENET.find("terrier")
    lines = caught.value.hint.splitlines()[1:]
    assert len(lines) == labels.MAX_LISTED + 1
    assert lines[-1] == f"and {sum('terrier' in name.lower().split() for name in words()) - labels.MAX_LISTED} more"


def words():
    """The names with everything but letters made blank, to count whole words in another way."""
    return ["".join(letter if letter.isalnum() else " " for letter in name) for name in IMAGENET.names]


def test_an_unknown_word_names_the_nearest():
    with pytest.raises(RequestError, match="there is no class 'tabbby'") as caught:
        IMAGENET.find("tabbby")
    assert "281 tabby, tabby cat" in caught.value.hint
    assert "0 to 999" in caught.value.hint


@pytest.mark.parametrize("word", ["1000", "index:1000", "99999999999999999999"])
def test_a_number_beyond_the_classes_is_refused(word):
    with pytest.raises(RequestError, match=f"no class {word.removeprefix('index:')}") as caught:
        IMAGENET.find(word)
    assert "1000 classes" in caught.value.hint


@pytest.mark.parametrize("word", ["", "  ", "_"])
def test_an_empty_word_names_nothing(word):
    with pytest.raises(RequestError, match="empty"):
        IMAGENET.find(word)


@pytest.mark.parametrize("word", ["-1", "²", "n02123046", "1.0"])
def test_words_that_look_like_numbers_or_ids_but_are_none(word):
    with pytest.raises(RequestError, match="no class"):
        IMAGENET.find(word)


class TestNamesThatAreNumbers:
    """Folders called 0, 1, ..., 10 are sorted as text, so that class 2 is called `10`."""

    LABELS = Labels(("0", "1", "10", "2"))

    def test_where_both_readings_agree_the_class_is_found(self):
        assert self.LABELS.find("1") == 1

    def test_where_they_differ_it_is_ambiguous(self):
        with pytest.raises(RequestError, match="ambiguous") as caught:
            self.LABELS.find("2")
        assert caught.value.hint == "write index:2 or name:2"

    def test_and_both_can_be_said(self):
        assert self.LABELS.find("index:2") == 2
        assert self.LABELS.find("name:2") == 3

    def test_a_name_that_is_no_index_is_a_name(self):
        assert self.LABELS.find("10") == 2


def test_in_a_prompt_a_comma_is_a_comma():
    prompts = Labels(("a cat, asleep", "a cat, awake"), synonyms=False)
    assert prompts.short(0) == "a cat, asleep"
    assert prompts.find("awake") == 1
    with pytest.raises(RequestError, match="ambiguous"):
        prompts.find("a cat")


def test_stand_ins_are_found_by_what_they_are_called():
    assert Labels.numbered(3).names == ("class 0", "class 1", "class 2")
    assert Labels.numbered(30).find("class 2") == 2
    assert Labels.numbered(30).find("2") == 2


def test_a_whole_name_is_no_part_of_one():
    found = {word: labels.find_whole_name(IMAGENET, word) for word in ("tabby cat", "Tabby", "n02123045", "281")}
    assert found == {"tabby cat": 281, "Tabby": 281, "n02123045": 281, "281": None}
    # Parts of names, of one class or several; a name of two classes.
    assert [labels.find_whole_name(IMAGENET, word) for word in ("dog", "train", "crane", "")] == [None] * 4


def test_wordnet_ids_are_as_many_as_the_names():
    with pytest.raises(ValueError, match="2 names"):
        Labels(("a", "b"), ("n00000001",))


class TestRead:
    def read(self, tmp_path: Path, name: str, content: str) -> Labels:
        (tmp_path / name).write_text(content, encoding="utf-8")
        return labels.read(tmp_path / name)

    def test_one_name_a_line(self, tmp_path):
        assert self.read(tmp_path, "names.txt", "cat\n grand  chien, dog \nöre\n\n") == Labels(
            ("cat", "grand chien, dog", "öre")
        )

    def test_wordnet_ids_in_front(self, tmp_path):
        read = self.read(tmp_path, "synsets.txt", "n02123045 tabby, tabby cat\nn02124075 Egyptian cat\n")
        assert read == Labels(("tabby, tabby cat", "Egyptian cat"), ("n02123045", "n02124075"))

    def test_wordnet_ids_alone(self, tmp_path):
        assert self.read(tmp_path, "synsets.txt", "n02123045\nn02124075").find("n02124075") == 1

    def test_a_json_list(self, tmp_path):
        assert self.read(tmp_path, "names.json", '["cat", "dog"]').names == ("cat", "dog")

    def test_a_json_object_is_in_the_order_of_its_numbers(self, tmp_path):
        content = {str(index): f"name {index}" for index in (10, *range(10))}
        assert self.read(tmp_path, "n.json", json.dumps(content)).names == tuple(f"name {i}" for i in range(11))

    def test_the_well_known_imagenet_class_index(self, tmp_path):
        read = self.read(tmp_path, "n.json", '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}')
        assert read == Labels(("tench", "goldfish"), ("n01440764", "n01443537"))

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("names.txt", "", "is empty"),
            ("names.txt", "\n \n", "is empty"),
            ("names.txt", "cat\n\ndog\n", "no name for class 1"),
            ("names.json", "[]", "is empty"),
            ("names.json", '["cat", 3]', "not a list of names"),
            ("names.json", '{"0": "cat", "2": "dog"}', "not a list of names"),
            ("names.json", '"cat"', "not a list of names"),
            ("names.json", "cat\ndog", "not a list of names"),
        ],
    )
    def test_files_that_do_not_name_every_class(self, tmp_path, name, content, said):
        with pytest.raises(RequestError, match=said):
            self.read(tmp_path, name, content)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(RequestError, match="cannot be read"):
            labels.read(tmp_path / "none.txt")

    def test_a_file_that_is_no_text(self, tmp_path):
        (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00\x81")
        with pytest.raises(RequestError, match="not UTF-8"):
            labels.read(tmp_path / "names.txt")
