"""What a report says to look at first, by hand on a few images, and the numbers that tables add."""

import json
from pathlib import Path

import pytest
from report_runs import RECORD, draw, make_run, outcome, read_facts, read_items, write_run

from camcli.base.errors import RequestError
from camcli.runs.report import ReportOptions
from camcli.runs.report.columns import Columns
from camcli.runs.report.entries import Entry, LabelRule
from camcli.runs.report.findings import APART, EDGE, FAR_APART, SHOWN_IMAGES, Findings
from camcli.runs.report.run import write_report


def find(*items):
    findings = Findings()
    for item in items:
        findings.add(item)
    return findings.list_all()


def of_map(**values):
    return {"maps": [{"variant": 0, "target": "0 a", **values}]}


# ---- findings


def test_failures_come_first_by_reason_the_most_frequent_first():
    failed = [{"error": why, "reason": why} for why in ("is cut short", "is gone", "is gone")]
    found = find(*failed, of_map())
    assert [(one.title, one.count, one.text, one.images, one.kind) for one in found] == [
        ("Failed", 2, "is gone", [1, 2], "bad"),
        ("Failed", 1, "is cut short", [0], "bad"),
    ]
    assert found[0].address == "reason=is+gone"


def test_wrong_predictions_and_the_classes_that_are_taken_for_each_other():
    def item(label, predicted):
        return {**of_map(), "labels": (label,), "predicted": predicted, "right": label == predicted}

    pairs = [("0 cat", "0 cat"), ("0 cat", "1 dog"), ("1 dog", "0 cat"), ("0 cat", "1 dog")]
    wrong, first, second = find(*(item(*pair) for pair in pairs))
    assert (wrong.count, wrong.address, wrong.images) == (3, "result=wrong", [1, 2, 3])
    assert wrong.text == "of 4 labelled images are predicted as another class: 25.0% right."
    assert (first.text, first.count, first.images) == ("0 cat is taken for 1 dog.", 2, [1, 3])
    assert first.address == "label=0+cat&predicted=1+dog"
    assert (second.count, second.images) == (1, [2])


def test_the_least_certain_images_in_their_order():
    values = [0.9, 0.1, 0.5, 0.1, 0.3, 0.8, 0.7, 0.4, 0.2]
    [found] = find(*(of_map(probability=one) for one in values))
    assert (found.title, found.count, found.address) == (
        "Least certain",
        6,
        "max%3Aprobability=0.5&sort=probability",
    )
    assert found.images == [1, 3, 8, 4, 7] and len(found.images) == SHOWN_IMAGES
    assert found.text == "The class explained has a probability of 0.5 or less; the lowest is 0.1."
    assert find(of_map(probability=0.51), of_map()) == []


def test_maps_that_disagree_and_maps_at_the_border():
    items = [{**of_map(edge=EDGE / 2), "apart": FAR_APART / 2}, {**of_map(edge=EDGE * 2), "apart": FAR_APART * 2}]
    apart, edge = find(*items, {**of_map(), "apart": APART / 2}, {**of_map(), "apart": 0.0})
    assert (apart.count, apart.images, apart.address) == (2, [1, 0], "min%3Aapart=1&sort=apart&desc=1")
    assert apart.text.endswith("up to 50\xa0% of the diagonal, in 1 image more than 25\xa0%.")
    assert (edge.count, edge.images, edge.address) == (1, [0], "max%3Aedge=8&sort=edge")
    [near] = find({**of_map(), "apart": 0.0876})
    assert near.text.endswith("up to 8.8\xa0% of the diagonal.")
    assert find({**of_map(), "apart": APART / 2}) == []


def test_notes_are_findings_and_a_run_without_troubles_has_none():
    [found] = find({**of_map(), "notes": ["the image is one colour"]})
    assert (found.title, found.count, found.address) == ("With a note", 1, "note=the+image+is+one+colour")
    assert find(of_map()) == []


# ---- labels


def rule(*target, **job):
    return LabelRule.from_record({"job": {"target": list(target), **job}})


def test_targets_are_labels_if_folder_dataset_or_a_file_names_them():
    assert rule("folder") == rule("dataset:cls") == rule("auto", targets="t.csv") == LabelRule(False)
    assert rule("predicted", "folder") == LabelRule(True)
    assert rule("predicted") is rule("tabby") is rule("folder", "tabby") is rule("top:3", targets="t.csv") is None


def test_right_and_wrong_by_the_class_explained_and_the_class_predicted():
    def truth(rule, *classes, predicted=0):
        lines = [outcome(Path("a"), "a", index=one, label="x", predicted=predicted) for one in classes]
        found = rule.find_truth(Entry(lines))
        return found and (found.labels, found.right)

    assert truth(LabelRule(False), 1) == (("1 x",), False)
    assert truth(LabelRule(False), 0, 1) == (("0 x", "1 x"), True)  # an image with two labels
    assert truth(LabelRule(True), 0, 1) == (("1 x",), False)  # the prediction, and a label that is another class
    assert truth(LabelRule(True), 0) == (("0 x",), True)
    assert truth(LabelRule(False), 1, predicted=None) is None  # a run of an earlier version


def test_nothing_is_right_or_wrong_where_the_labels_map_failed():
    failed = outcome(Path("a"), "a", files={}, index=None, predicted=None, method=None, error="is zero")
    predicted = outcome(Path("a"), "a", index=0, predicted=0)
    assert LabelRule(True).find_truth(Entry([failed, predicted])) is None
    assert LabelRule(False).find_truth(Entry([predicted, failed])) is None
    concepts = outcome(Path("a"), "a", index=None, predicted=0, method="dff")  # have no class, and did not fail
    assert LabelRule(False).find_truth(Entry([concepts, predicted])).right


def test_a_report_counts_what_is_right(tmp_path):
    out = make_run(tmp_path, 6)
    write_report(out, ReportOptions(workers=1))
    assert [item["right"] for item in read_items(out)] == [True, True, False, True, True, False]
    assert read_facts(out)["labelled"] is True
    assert "<strong>4</strong> of 6 predicted as labelled" in (out / "report.html").read_text()


def test_without_labels_nothing_is_right_or_wrong(tmp_path):
    out = make_run(tmp_path, 3, job={**RECORD["job"], "target": ["predicted"]})
    write_report(out, ReportOptions(workers=1))
    assert not any("right" in item for item in read_items(out))
    assert "predicted as labelled" not in (out / "report.html").read_text()


# ---- columns


def columns(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_text(text)
    return Columns([str(tmp_path / name)])


def find_numbers(found, *outcomes):
    for one in outcomes:
        found.add_image(one)
    return [found.find(one) for one in outcomes]


@pytest.mark.parametrize("name", ["photos/a.jpg", "./photos//a.jpg", "/data/photos/a.jpg", "a.jpg"])
def test_numbers_are_joined_by_name_path_or_file_name(tmp_path, name):
    line = outcome(Path("/data/photos/a.jpg"), "photos/a.jpg")
    found = columns(tmp_path, f"image,blur,who,sharp\n{name},0.5,me,\nother.jpg,1,you,2\n")
    assert found.titles == ["blur", "sharp"]
    assert find_numbers(found, line, outcome(Path("/x/b.jpg"), "b.jpg")) == [[0.5, None], [None, None]]
    assert found.describe_unmatched() == "the columns are of 1 that are not among the images: other.jpg"


def test_a_file_name_of_two_images_joins_neither(tmp_path):
    found = columns(tmp_path, "image,blur\np/a.jpg,1\nq/a.jpg,2\n")
    assert find_numbers(found, outcome(Path("/x/a.jpg"), "x/a.jpg")) == [[None]]


def test_a_row_of_one_folders_image_is_not_anothers(tmp_path):
    found = columns(tmp_path, "image,blur\nb/dog.jpg,1\n")
    assert find_numbers(found, outcome(Path("/x/a/dog.jpg"), "a/dog.jpg")) == [[None]]
    assert found.describe_unmatched() == "the columns are of 1 that are not among the images: b/dog.jpg"


def test_a_file_name_alone_is_joined_where_it_fits_one_image_only(tmp_path):
    images = [
        outcome(Path(f"/x/{name}"), name) for name in ("a/dog.jpg", "b/dog.jpg", "b/cat.jpg", "fox.jpg", "c/fox.jpg")
    ]
    found = columns(tmp_path, "image,blur\ndog.jpg,1\ncat.jpg,2\nfox.jpg,3\n")
    assert find_numbers(found, *images) == [[None], [None], [2], [3], [None]]
    assert found.describe_ambiguous() == (
        "left out: 1 name in the columns that fit several images; add folders: dog.jpg"
    )
    assert found.describe_unmatched() == ""


def test_pages_of_a_file_have_its_row(tmp_path):
    pages = [outcome(Path("/x/a/scan.tif"), f"a/scan.tif.page{number}") for number in (1, 2)]
    assert find_numbers(columns(tmp_path, "image,blur\nscan.tif,1\n"), *pages) == [[1], [1]]


def test_rows_of_an_image_are_averaged_and_what_is_not_finite_is_no_number(tmp_path):
    found = columns(
        tmp_path, '{"path": "a.jpg", "v": 1}\n{"path": "a.jpg", "v": 4}\n{"path": "b.jpg", "v": NaN}\n', "t.jsonl"
    )
    assert found.find(outcome(Path("a.jpg"), "a.jpg")) == [2.5]
    assert found.find(outcome(Path("b.jpg"), "b.jpg")) == [None]


def test_metrics_of_evaluate_are_columns_of_their_maps_without_controls(tmp_path):
    own = {"source": "/elsewhere/a.jpg", "name": "a.jpg", "label": "x", "score": 1.0}
    lines = [
        {**own, "map": "gradcam", "kind": "method", "metric": "deletion-mean", "value": 0.25},
        {**own, "map": "random", "kind": "control", "metric": "deletion-mean", "value": 0.5},
        {**own, "map": "gradcam", "kind": "method", "metric": "insertion-mean", "value": None},
    ]
    found = columns(tmp_path, "".join(json.dumps(one) + "\n" for one in lines), "evaluation.jsonl")
    assert (found.titles, found.find(outcome(Path("a.jpg"), "a.jpg"))) == (["deletion-mean, gradcam"], [0.25])


def test_metrics_of_several_layers_are_several_columns(tmp_path):
    def line(layer, value, kind="method"):
        names = {"name": "a.jpg", "map": "gradcam", "metric": "sparsity", "kind": kind, "layer": layer}
        return json.dumps({**names, "value": value}) + "\n"

    text = line("layer3", 0.25) + line("layer4", 0.5) + line("", 1.0, "control")
    found = columns(tmp_path, text, "evaluation.jsonl")
    assert found.titles == ["sparsity, gradcam at layer3", "sparsity, gradcam at layer4"]
    assert find_numbers(found, outcome(Path("a.jpg"), "a.jpg")) == [[0.25, 0.5]]


def test_parquet_tables_are_read_too(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"file_name": ["a.jpg"], "blur": [0.5]}), tmp_path / "t.parquet")
    found = Columns([str(tmp_path / "t.parquet")])
    assert (found.titles, found.find(outcome(Path("a.jpg"), "a.jpg"))) == (["blur"], [0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("who,blur\nme,1\n", "has no column that names images; there are: who, blur"),
        ("image,who\na.jpg,me\n", "has no column of numbers"),
        ('image,blur\n"a.jpg,1\n', "cannot be read: line"),
    ],
)
def test_a_table_that_cannot_be_joined_is_refused(tmp_path, text, message):
    with pytest.raises(RequestError, match=message):
        columns(tmp_path, text)


def test_numbers_reach_the_page(tmp_path):
    out = make_run(tmp_path, 2)
    (tmp_path / "t.csv").write_text("image,blur\n00001.jpg,0.25\n")
    write_report(out, ReportOptions(columns=(str(tmp_path / "t.csv"),), workers=1))
    assert read_facts(out)["columns"] == ["blur"]
    assert [item.get("values") for item in read_items(out)] == [None, [0.25]]


def test_images_are_found_in_the_records_of_shards_too(tmp_path):
    photo = tmp_path / "a.jpg"
    draw(photo, (0, 0, 255))
    out = write_run(tmp_path / "maps", [outcome(photo, "a.jpg")])
    write_run(out / "shards" / "1-of-2", [outcome(photo, "b.jpg", files={"overlay": "a.jpg.overlay.jpg"})])
    assert write_report(out, ReportOptions(workers=1)).images == 2
