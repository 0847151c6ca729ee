"""``camcli compare`` of models, checkpoints and targets: passes one after the other, and what each word means."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import do
from compare_runs import compare, facts, lines, table, write_gradients, written
from shared import BLUE, RED, Paint
from standin import prompt as sentence


def test_several_models_are_compared_one_after_the_other(tiny_file: Path, here: Path) -> None:
    write_gradients()
    result = do(
        *("compare", "a.png", "-m", f"{tiny_file}:make", "-m", f"{tiny_file}:moody", "--layer", "body", "--out", "out"),
        *("--device", "cpu", "--target", "red"),
    )
    assert result.exit_code == 0, result.output
    [line] = lines()
    first, second = line["maps"]
    assert first["model"] != second["model"]
    assert {**first, "model": ""} == {**second, "model": ""}
    assert np.allclose(line["similarity"]["pearson"], 1)
    assert [one["model"]["name"] for one in facts()["passes"]] == [first["model"], second["model"]]
    assert "pass 2 of 2" in result.stderr


def test_checkpoints_of_one_model_are_named_and_random_weights_are_marked(tiny: str, here: Path) -> None:
    write_gradients()
    state = {"stem.weight": 0.5 * torch.eye(3).reshape(3, 3, 1, 1), "body.weight": torch.full((3, 1, 2, 2), 0.25)}
    torch.save(state, "half.pth")
    result = compare(tiny, "a.png", "--model", "half.pth", "--target", "red", "--layer", "stem")
    assert result.exit_code == 0, result.output
    one, half = lines()[0]["maps"]
    assert half["weights"] == "half.pth"
    assert half["score"] == pytest.approx(one["score"] / 2)
    again = compare(tiny, "a.png", "--weights", "pretrained", "--weights", "half.pth", "--weights", "random", out="two")
    assert again.exit_code == 0, again.output
    assert [one["untrained"] for one in lines("two")[0]["maps"]] == [False, False, True]
    assert "compare.untrained.png" in written("two")
    assert "random weights: means nothing" in again.stderr


def test_a_checkpoint_without_its_model_is_told_how_it_is_named(here: Path) -> None:
    write_gradients()
    result = do("compare", "a.png", "--model", "my.pt", "--out", "out")
    assert result.exit_code == 2
    assert "--weights pretrained --weights my.pt" in result.stderr


OTHER = """
from torch import nn

import tiny


class Other(tiny.Tiny):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Conv2d(3, 3, 1, bias=False)

    def forward(self, images):
        return 10 * self.trunk(self.body(self.stem(images))).mean((2, 3))


def make():
    import torch

    made = tiny.make()
    module = Other()
    module.load_state_dict({**made[0].state_dict(), "trunk.weight": torch.eye(3).reshape(3, 3, 1, 1)})
    return module, *made[1:]
"""


def test_layers_of_two_architectures_need_not_have_one_name(tiny_file: Path, here: Path) -> None:
    """Without a layer each has its own default; a name that one of them lacks is refused before the first image."""
    write_gradients()
    Path("tiny.py").write_text(tiny_file.read_text())
    Path("other.py").write_text(OTHER)
    words = ("a.png", "--model", "other.py:make", "--target", "red")
    result = compare("tiny.py:make", *words)
    assert result.exit_code == 0, result.output
    assert [one["layer"] for one in lines()[0]["maps"]] == ["body", "trunk"]
    assert "at body / trunk" in result.stderr
    refused = compare("tiny.py:make", *words, "--layer", "trunk", out="two")
    assert refused.exit_code == 2
    assert "'trunk'" in refused.stderr
    assert not Path("two").exists()


def test_a_word_that_has_no_class_in_an_image_fails_alone(tiny: str, here: Path) -> None:
    write_gradients("green/a.png")
    write_gradients("violet/b.png")
    result = compare(tiny, "green", "violet", "--target", "folder", "--target", "blue", "--layer", "stem")
    assert result.exit_code == 1
    first, second = lines()
    assert [one["label"] for one in first["maps"]] == ["green", "blue"]
    assert [one["label"] for one in second["maps"]] == [None, "blue"]
    assert "violet" in second["maps"][0]["error"]


def test_words_that_mean_one_class_have_a_map_each(tiny: str, paint: Paint) -> None:
    paint("a.png", RED, box=(4, 4, 20, 20), ground=BLUE)
    result = compare(tiny, "a.png", "--target", "predicted", "--target", "blue", "--layer", "stem")
    assert result.exit_code == 0, result.output
    assert [one["label"] for one in lines()[0]["maps"]] == ["blue", "blue"]
    assert table(result)[0][2:] == ["+1.000", "+1.000", "+1.000", "1"]


@pytest.mark.slow
def test_prompts_that_others_are_held_against_have_no_column(standin: str, paint: Paint) -> None:
    paint("a.png", RED, box=(4, 4, 20, 20), ground=BLUE)
    texts = [sentence(name) for name in ("tabby", "espresso", "lemon")]
    words = [word for text in texts for word in ("--text", text)]
    result = compare(standin, "a.png", *words, "--versus", texts[2], "--score", "margin")
    assert result.exit_code == 0, result.output
    assert [(one["target"], one["versus"]) for one in lines()[0]["maps"]] == [(text, texts[2]) for text in texts[:2]]


def test_a_checkpoint_that_fails_is_called_as_its_column(tiny: str, here: Path) -> None:
    write_gradients()
    state = {"stem.weight": torch.full((3, 3, 1, 1), torch.nan), "body.weight": torch.full((3, 1, 2, 2), 0.25)}
    torch.save(state, "broken.pth")
    words = ("a.png", "--weights", "pretrained", "--weights", "broken.pth", "--target", "red", "--layer", "body")
    result = compare(tiny, *words)
    assert result.exit_code == 1, result.output
    assert f"failed: a.png: {tiny} (broken): " in " ".join(result.stderr.split())
    named = compare(tiny, *words, "--name", "epoch 1", "--name", "epoch 2", out="named")
    assert "failed: a.png: epoch 2: " in " ".join(named.stderr.split())


def test_a_folder_of_its_own_says_what_differs_from_the_one_of_its_name(tiny: str, here: Path) -> None:
    write_gradients()
    words = ("compare", "a.png", "-m", tiny, "--layer", "body", "--weights", "one.pth", "--weights", "two.pth")
    for number, (strength, more, expected) in enumerate(
        [
            (1.0, (), None),
            (2.0, (), f"another comparison: the weights of {tiny} (two) changed"),
            (2.0, ("--panel-size", "300"), "another comparison: --panel-size was 0, is 300"),
            (
                2.0,
                ("--target", "red", "--out", "camcli-out/compare-tiny-body-gradcam-one-a"),
                "--target was auto, is red",
            ),
        ]
    ):
        for name, value in (("one", 1.0), ("two", strength)):
            body = torch.full((3, 1, 2, 2), 0.25 * value)
            torch.save({"stem.weight": value * torch.eye(3).reshape(3, 3, 1, 1), "body.weight": body}, f"{name}.pth")
        result = do(*words, *more, "--device", "cpu")
        assert result.exit_code == (2 if number == 3 else 0), result.output
        said = " ".join(result.stderr.split())
        assert "other versions" not in said
        assert "job changed" not in said
        assert "sheets was" not in said
        assert expected is None or expected in said, said
        assert said.count("another comparison:") == (number in (1, 2))
