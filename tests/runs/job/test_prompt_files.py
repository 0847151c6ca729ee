"""Files of prompts: which prompts an image has, and which are there for contrast."""

from pathlib import Path
from typing import Any

import pytest
from prompt_files import PICTURE, written

from camcli.base.errors import PictureError, RequestError
from camcli.runs.job.job import Job
from camcli.runs.job.prompts import Prompts, read_prompts


@pytest.mark.parametrize("content", ["a dog\na cat\n", "\ufeffa dog\r\n\r\n  a cat \r\n", "\n\na dog\n \na cat"])
def test_a_plain_file_has_one_prompt_a_line(here: Path, content: str) -> None:
    found = read_prompts(Job(texts=written("words.txt", content)))
    assert found == Prompts(("a dog", "a cat"))
    assert read_prompts(Job(text=("a bird",), texts="words.txt")).explained == ("a bird", "a dog", "a cat")
    assert read_prompts(Job()) is None


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"texts": "nowhere.txt"}, "'nowhere.txt' cannot be read: No such file", ""),
        ({"texts": "latin.txt"}, "is not UTF-8 text", "one prompt a line"),
        ({"texts": "blank.txt"}, "'blank.txt' is empty", ".csv or .jsonl"),
        ({"texts": "own.csv", "text": ("a dog",)}, "both prompts for every image", "--versus"),
        ({"texts": "own.csv", "group": "2"}, "one sample", "plain file"),
        ({"texts": "half.csv"}, "line 2: an image and its prompt are needed", 'picture,prompt or {"picture": "a.jpg"'),
        ({"texts": "number.jsonl"}, "its prompt a text or a list", ""),
        ({"texts": "nothing.csv"}, "the prompts file 'nothing.csv' lists nothing", ""),
    ],
)
def test_a_file_of_prompts_that_cannot_be_used(here: Path, options: dict[str, Any], message: str, hint: str) -> None:
    written("latin.txt", "Zürich".encode("latin-1"))
    written("blank.txt", "\n \n")
    written("own.csv", "a.jpg,a dog\n")
    written("half.csv", "picture,text\na.jpg,\n")
    written("number.jsonl", '{"picture": "a.jpg", "text": 1.5}\n')
    written("nothing.csv", "\n")
    with pytest.raises(RequestError, match=message) as caught:
        read_prompts(Job(**options))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.csv", 'picture,text\na.jpg,a dog\nb.jpg,"a cat, asleep"\na.jpg,a cup\nb.jpg,a cup\na.jpg,a dog\n'),
        ("own.csv", 'a.jpg,a dog,a cup\nb.jpg,"a cat, asleep",a cup\n'),
        (
            "own.jsonl",
            '{"picture": "a.jpg", "text": ["a dog", "a cup"]}\n'
            '{"picture": "b.jpg", "prompt": ["a cat, asleep", "a cup"]}',
        ),
    ],
)
def test_each_picture_has_prompts_of_its_own(here: Path, name: str, content: str) -> None:
    written("a.jpg", "")
    written("b.jpg", "")
    found = read_prompts(Job(texts=written(name, content)))
    own = {found.explained[number] for number in found.find_competing(Path("a.jpg"))}
    assert own == {"a dog", "a cup"}
    assert [found.explained[number] for number in found.find_competing(Path("b.jpg"))] == ["a cat, asleep", "a cup"]
    assert found.min_competing == 2
    with pytest.raises(PictureError, match="lists no prompt for this image"):
        found.find_competing(Path("c.jpg"))


def test_a_word_that_is_a_prompt_means_it_and_any_other_is_one_for_contrast(here: Path) -> None:
    found = read_prompts(Job(text=("a dog", "a cat"), versus=("A  Cat", "a wall", "", "A wall")))
    assert (found.contrast, found.versus) == (("a wall", ""), (1, 2, 3))
    assert found.find_competing(PICTURE) == ()
    assert found.min_competing == 4
    assert str(found) == "'a dog', 'a cat'; for contrast 'a wall', ''"


def test_a_prompt_of_some_pictures_is_for_contrast_in_the_others(here: Path) -> None:
    written("a.jpg", "")
    written("b.jpg", "")
    file = written("own.csv", "a.jpg,a dog\na.jpg,a cat\nb.jpg,a cup\n")
    found = read_prompts(Job(texts=file, versus=("a cat", "a wall")))
    assert (found.explained, found.contrast) == (("a dog", "a cat", "a cup"), ("a cat", "a wall"))
    assert found.find_competing(Path("a.jpg")) == (0, 1, 4)  # of which the cat is its own
    assert found.find_competing(Path("b.jpg")) == (2, 3, 4)
    assert found.versus == (1, 3, 4)


def test_many_prompts_are_shown_in_part() -> None:
    assert str(Prompts(tuple(f"thing {number}" for number in range(9)))).endswith("'thing 4' and 4 more")
    assert "…" in str(Prompts(("word " * 40,)))
