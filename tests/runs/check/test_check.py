"""Rules on one finished run: what they measure, by hand, and what they say."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from commands import do
from PIL import Image
from recorded import line, record, spot
from shared import RED, Paint

from camcli.base.errors import RequestError
from camcli.runs.check.example import EXAMPLE
from camcli.runs.check.rules import read_rules
from camcli.runs.check.run import RunCheck

ONES = np.ones((8, 8), np.float32)


def check(*rules: str, out: str = "out", boxes: str = "") -> list[tuple[bool, str]]:
    """Whether each rule holds, and what was found; the rule of camcli's own is the last."""
    Path("rules.toml").write_text(boxes + "".join(f"[[check]]\n{rule}\n" for rule in rules))
    checked = RunCheck(Path(out), read_rules(Path("rules.toml"), "check"))
    assert [*checked]
    return [(tally.holds, tally.describe()) for tally in checked.tallies]


def measure(rule: str, limit: str = "max = -9", **options) -> list[float | None]:
    """The values of a measure, map by map."""
    Path("rules.toml").write_text(f"[[check]]\n{rule}\n{limit}\n")
    checked = RunCheck(Path("out"), read_rules(Path("rules.toml"), "check"))
    return [row["value"] for rows in checked for row in rows if row["measure"] != "failed"]


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ('measure = "energy-in-border"\nwidth = 0.25', 0.75),  # all but 8 x 8 of 16 x 16 pixels
        ('measure = "energy-in-region"\nregion = [0, 0, 0.5, 1]', 0.5),
        ('measure = "energy-in-region"\nregion = [0.5, 0.5, 1, 1]', 0.25),
        ('measure = "effective-area"', 1.0),
        ('measure = "probability"', 0.5),
        ('measure = "score"', 1.0),
    ],
)
def test_numbers_are_those_worked_out_by_hand(here: Path, rule: str, value: float) -> None:
    record("out", [line("a", ONES)])
    assert measure(rule) == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ('measure = "constant"', True),
        ('measure = "predicted"', False),
        ('measure = "peak-in-region"\nregion = [0, 0, 0.2, 0.2]', True),  # the peak of equal cells is the first
        ('measure = "peak-in-region"\nregion = [0.5, 0, 1, 1]', False),
    ],
)
def test_truths(here: Path, rule: str, value: bool) -> None:
    record("out", [line("a", ONES, predicted=2, predicted_label="blue")])
    [found] = measure(rule, "is = true")
    assert found is value  # and no number, so that JSON has true and false


def test_energy_in_a_box_of_the_maps_own_class(here: Path, paint: Paint) -> None:
    """The map is in the left half; one box is of its class, another of a class that is not explained."""
    paint("in/a.png"), paint("in/b.png")
    half = np.concatenate([ONES[:, :4], 0 * ONES[:, :4]], axis=1)
    record("out", [line("a.png", half)], [line("b.png", half)])
    Path("boxes.csv").write_text("image,x0,y0,x1,y1,label\na.png,0,0,32,16,Red\na.png,16,0,32,32,blue\n")
    [(holds, found), _] = check('measure = "energy-in-box"\nmin = 0.49\nmax = 0.51', boxes='boxes = "boxes.csv"\n')
    assert (holds, found) == (True, "holds for 1 of 1 (100.0%), asked for 100%")  # b has no box


def test_boxes_name_the_class_by_its_number_too(here: Path, paint: Paint) -> None:
    """As ``camcli mosaics`` writes them."""
    paint("in/a.png")
    record("out", [line("a.png", np.concatenate([ONES[:, :4], 0 * ONES[:, :4]], axis=1))])
    rule = 'measure = "energy-in-box"\nmin = 0.9\n'
    for label, found in (("index:0", True), ("0", True), ("RED", True), ("index:2", False)):
        Path("boxes.csv").write_text(f"image,x0,y0,x1,y1,label\na.png,0,0,16,32,{label}\n")
        assert check(rule, boxes='boxes = "boxes.csv"\n')[0][0] is found, label
    assert [holds for holds, _ in check('measure = "score"\nmin = 0\nclass = "index:0"')] == [True, True]


def test_a_mask_is_what_is_not_black_of_an_image_of_its_size(here: Path) -> None:
    record("out", [line("a", spot(0, 7))], [line("b", spot(7, 0))])
    mask = Image.new("L", (32, 32))
    mask.paste(1, (16, 0, 32, 16))
    mask.save("mask.png")
    rule = 'measure = "peak-in-region"\nmask = "mask.png"'
    assert measure(rule, "is = false") == [True, False]
    # Enlarged, the cell in the corner reaches into its neighbours, which are in the same quarter.
    assert measure('measure = "energy-in-region"\nmask = "mask.png"') == [pytest.approx(1), pytest.approx(0)]
    mask.resize((10, 10), Image.Resampling.NEAREST).save("mask.png")
    assert check(f"{rule}\nis = false")[0] == (False, "holds for 0 of 2 (0.0%), asked for 100%; 2 undefined")


def test_a_line_without_the_images_size_is_an_error_that_says_so(here: Path) -> None:
    record("out", [line("a", spot(0, 7), image_size=None)])
    for rule in (
        'measure = "peak-in-region"\nregion = [0, 0, 1, 1]\nis = true',
        'measure = "energy-in-border"\nmax = 1',
    ):
        with pytest.raises(RequestError, match="does not have the image's size"):
            check(rule)


def test_shares_classes_and_each_class_by_itself(here: Path) -> None:
    lines = [line(f"{number}", ONES, "red", probability=number / 10) for number in range(9)]
    record("out", *([one] for one in lines), [line("x", ONES, "blue", probability=0.9)])
    rule = 'measure = "probability"\nmin = 0.45\n'
    found = check(rule + "share = 0.5", rule + 'share = "55%"', rule + 'class = "BLUE"', rule + "per_class = true")
    assert [holds for holds, _ in found] == [True, False, True, True, False, True]
    assert found[4][1] == "holds for 4 of 9 (44.4%), asked for 100%"


def test_a_failed_image_breaks_the_run_unless_a_rule_allows_it(here: Path) -> None:
    record("out", [line("a", ONES)], [line("b")])
    assert [holds for holds, _ in check('measure = "score"\nmin = 0')] == [True, False]
    assert [holds for holds, _ in check('measure = "failed"\nis = false\nshare = 0.5')] == [True]


def test_several_methods_are_told_apart(here: Path) -> None:
    record("out", [line("a", ONES), line("a", ONES, method="layercam", files={"array": "a.layercam.npy"})])
    Path("rules.toml").write_text('[[check]]\nmeasure = "score"\nmin = 2\n')
    said = do("check", "out", "--rules", "rules.toml").output
    assert "a (red), gradcam at stem: 1" in said
    assert "a (red), layercam at stem: 1" in said


def test_an_image_that_is_not_recorded_breaks_the_run(here: Path) -> None:
    facts = here / "out" / "run.json"
    record("out", [line("a", ONES)])
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "images": 4}))
    assert check('measure = "score"\nmin = 0')[-1] == (False, "holds for 1 of 4 (25.0%), asked for 100%")


def test_what_is_undefined_breaks_a_rule_with_its_reason(here: Path) -> None:
    record("out", [line("a", -ONES)], [line("b", ONES, probability=None)])
    found = check('measure = "energy-in-border"\nmax = 1', 'measure = "probability"\nmin = 0')
    assert found[:2] == [
        (False, "holds for 1 of 2 (50.0%), asked for 100%; 1 undefined"),
        (False, "holds for 1 of 2 (50.0%), asked for 100%; 1 undefined"),
    ]


def test_a_rule_about_nothing_is_broken(here: Path) -> None:
    record("out", [line("a", ONES)])
    assert check('measure = "score"\nmin = 0\nclass = "pink"')[0] == (False, "there is no map that it is about")


def test_the_command_says_and_writes_what_broke(here: Path) -> None:
    record("out", [line("a", ONES)], [line("b", spot(1, 1))])
    Path("r.toml").write_text('[[check]]\nname = "lively"\nmeasure = "constant"\nis = false\n')
    result = do("check", "out", "--rules", "r.toml", "--to", "c.jsonl", "--junit", "c.xml")
    assert result.exit_code == 1
    assert "broken: lively: holds for 1 of 2 (50.0%), asked for 100% a (red): true" in " ".join(result.output.split())
    case = next(ElementTree.parse("c.xml").getroot().iter("testcase"))
    assert (case.get("name"), case.find("failure").text.splitlines()[1]) == ("lively", "r.toml, line 1")
    rows = [json.loads(one) for one in Path("c.jsonl").read_text().splitlines()]
    assert [(row["name"], row["rule"], row["holds"]) for row in rows if row["measure"] == "constant"] == [
        ("a", "lively", False),
        ("b", "lively", True),
    ]


def test_the_example_is_valid_and_holds_on_a_run_of_camcli(tiny: str, paint: Paint) -> None:
    paint("in/a.png", RED, box=(8, 8, 24, 24))
    assert do("explain", "--model", tiny, "--save", "array", "--out", "out", "in", "-q").exit_code == 0
    printed = do("check", "--example")
    assert printed.stdout == EXAMPLE
    Path("rules.toml").write_text(printed.stdout)
    result = do("check", "out", "--rules", "rules.toml")
    assert result.exit_code == 0, result.output
    assert read_rules(Path("rules.toml"), "diff").rules


def test_commented_rules_of_the_example_are_valid_too(here: Path) -> None:
    text = re.sub(r"^# (?=\[\[|\w+ = )", "", EXAMPLE, flags=re.MULTILINE)
    Path("rules.toml").write_text(text)
    assert len(read_rules(Path("rules.toml"), "check").rules) == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[check]]\nmeasure =", "r.toml is not valid TOML: Invalid value (at end of document)"),
        ("[[chekc]]\n", "r.toml, line 1: there is no key 'chekc'"),
        (
            "[[diff]]\nmeasure = 'pearson'\nmin = 1",
            "no [[check]] rules; it has rules of the other kind, for camcli diff",
        ),
        ("\n[[check]]\nmin = 1", "r.toml, line 2: the rule names no measure"),
        ('[[check]]\nmin = 1\nmeasur = "entropy"', "r.toml, line 3: there is no key 'measur'"),
        ("[[check]]\nmeasure = 'energy-in-bx'\nmin = 1", "r.toml, line 2: there is no measure 'energy-in-bx'"),
        ("[[check]]\nmeasure = 'pearson'\nmin = 1", "'pearson' is a measure of [[diff]]"),
        ("[[check]]\nmeasure = 'insertion-blur'\nmin = 1", "camcli evaluate measures it"),
        ("[[check]]\nmeasure = 'max-box-acc'\nmin = 1", "max-box-acc is a number of several images, not of one map"),
        ("boxes = 1\n[[check]]\nmeasure = 'score'\nmin = 1", "must be the path of a file or folder"),
        ("[[check]]\nmeasure = 'score'\nmin = 1\nshaer = 1", "line 4 (score): there is no key 'shaer'"),
        ("[[check]]\nmeasure = 'score'\nis = true", "line 3: score is a number, so it has no is"),
        ("[[check]]\nmeasure = 'constant'\nmax = 1", "line 3: constant is true or false, so it has no max"),
        ("[[check]]\nmeasure = 'score'", "line 1: the rule on score has no limit"),
        ("[[check]]\nmeasure = 'score'\nmin = '1'", "line 3: min cannot be '1'"),
        ("[[check]]\nmeasure = 'score'\nmin = 1\nshare = 95", "line 4: share cannot be 95"),
        ("[[check]]\nmeasure = 'score'\nmin = 2\nmax = 1", "max is below min"),
        ("[[check]]\nmeasure = 'peak-in-region'\nis = true", "needs a region or a mask"),
        ("[[check]]\nmeasure = 'peak-in-region'\nis = true\nregion = [1, 0, 0, 1]", "region cannot be [1, 0, 0, 1]"),
        ("[[check]]\nmeasure = 'energy-in-box'\nmin = 1", "the file names none"),
        ("check = 1", "check must be tables"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(here: Path, text: str, said: str) -> None:
    record("out", [line("a", ONES)])
    Path("r.toml").write_text(text)
    result = do("check", "out", "--rules", "r.toml")
    assert (result.exit_code, said in " ".join(result.output.split())) == (2, True), result.output


def test_every_measure_can_be_listed(here: Path) -> None:
    listed = do("check", "--list").stdout
    assert "[[check]]\tenergy-in-box\tmin, max\t" in listed
    assert "[[diff]]\tmoved\tmin, max\t" in listed
