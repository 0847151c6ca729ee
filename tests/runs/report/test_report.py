"""The report's data: every image once, its maps, numbers and findings, from whatever a run left in its folder."""

from pathlib import Path

import pytest
from PIL import Image
from report_runs import CLASSES, HOSTILE, SIZE, draw, make_run, outcome, read_facts, read_items, write_run

from camcli.base.errors import NothingFoundError, RequestError
from camcli.images.own_outputs import WrittenFiles
from camcli.runs.report import BLOCK, CELL, SIDE, ReportOptions
from camcli.runs.report.items import MAX_COLUMNS, find_edge_distance, group_reason, quote_path
from camcli.runs.report.run import write_report
from camcli.runs.report.thumbnails import fit_size


def report(out: Path, **options):
    return write_report(out, ReportOptions(workers=2, **options))


# ---- images and maps


def test_every_image_is_there_once_in_the_order_of_the_run_with_what_its_line_says(tmp_path):
    out = make_run(tmp_path, 3)
    made = report(out)
    items = read_items(out)
    assert (made.page, made.images, made.maps, len(items)) == (out / "report.html", 3, 3, 3)
    assert [item["name"].rpartition("/")[2] for item in items] == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert items[1]["maps"][0] == {
        "variant": 0,
        "target": "1 tiger cat",
        "method": "gradcam",
        "layer": "layer4",
        "score": 4.0,
        "probability": 0.366337,
        "peak": [13.0, 7.0],
        "edge": round(7 / 48, 6),
        "low": 0.0,
        "high": 1.0,
        "files": {"overlay": "*.overlay.jpg"},
    }
    assert items[1]["size"] == [*SIZE]
    assert items[1]["picture"] == "../photos/tiger%20cat/00001.jpg"
    assert (out / items[1]["picture"].replace("%20", " ")).is_file()


def test_an_images_address_in_the_page_is_its_names_alone(tmp_path):
    out = make_run(tmp_path / "a", 3)
    report(out)
    other = make_run(tmp_path / "b", 2)
    report(other, single_file=True)
    ids = [item["id"] for item in read_items(out)]
    assert ids[:2] == [item["id"] for item in read_items(other)]
    assert ids[0] == "7827cc70239b" and len(set(ids)) == 3


def test_the_last_whole_result_is_shown_and_what_failed_after_it_is_told(tmp_path):
    photo = tmp_path / "a.jpg"
    draw(photo, (0, 0, 255))
    out = write_run(
        tmp_path / "maps",
        [outcome(photo, "a.jpg", score=1.0)],
        [outcome(photo, "a.jpg", score=2.0)],
        [outcome(photo, "a.jpg", files={}, method=None, index=None, error="is gone")],
        [outcome(photo, "b.jpg", files={}, method=None, error="no 7")],
    )
    report(out)
    first, second = read_items(out)
    assert (first["maps"][0]["score"], first["later"], "error" in first) == (2.0, "is gone", False)
    assert (second["error"], second["reason"]) == ("no 7", "no N")


def test_results_of_other_jobs_are_left_out_with_a_note(tmp_path):
    out = make_run(tmp_path, 2)
    with (out / "outcomes.jsonl").open("ab") as file:
        file.write(outcome(tmp_path / "x.jpg", "x.jpg").as_line().replace(b'"j1"', b'"j2"'))
    assert "left out: 1 line of other jobs in this folder" in report(out).notes
    assert len(read_items(out)) == 2


def test_methods_layers_and_targets_are_columns_named_by_what_they_differ_in(tmp_path):
    photo = tmp_path / "a.jpg"
    draw(photo, (0, 0, 255))
    maps = [
        outcome(
            photo,
            "a.jpg",
            method=method,
            index=index,
            label=CLASSES[index],
            files={"overlay": f"a.{method}{index}.jpg"},
        )
        for index in (0, 1)
        for method in ("gradcam", "layercam")
    ]
    out = write_run(tmp_path / "maps", maps)
    report(out)
    facts, [item] = read_facts(out), read_items(out)
    assert (facts["variants"], facts["ranked"]) == (["gradcam", "layercam"] * 2, True)
    targets = ["0 tabby"] * 2 + ["1 tiger cat"] * 2
    assert [(one["variant"], one["target"]) for one in item["maps"]] == [*enumerate(targets)]


def test_a_map_stays_in_its_targets_column_where_the_first_targets_map_failed(tmp_path):
    photo = tmp_path / "a.jpg"
    draw(photo, (0, 0, 255))

    def lines(name, *failed):
        return [
            outcome(photo, name, method=None, layer=None, index=None, files={}, error="is zero")
            if index in failed
            else outcome(photo, name, method=method, index=index)
            for index in (0, 1)
            for method in ("gradcam", "layercam")
        ]

    out = write_run(tmp_path / "maps", lines("a.jpg"), lines("b.jpg", 0), lines("c.jpg", 1))
    report(out)
    assert [[one["variant"] for one in item["maps"]] for item in read_items(out)] == [[0, 1, 2, 3], [2, 3], [0, 1]]


def test_maps_beyond_the_columns_have_no_thumbnail_and_are_there_all_the_same(tmp_path):
    photo = tmp_path / "a.jpg"
    draw(photo, (0, 0, 255))
    maps = [outcome(photo, "a.jpg", layer=f"layer{n}") for n in range(MAX_COLUMNS + 1)]
    out = write_run(tmp_path / "maps", maps, [outcome(photo, "b.jpg", layer=f"layer{MAX_COLUMNS}")])
    report(out)
    first, second = read_items(out)
    assert len(first["maps"]) == MAX_COLUMNS + 1 and len(first["sheets"]) == MAX_COLUMNS + 1
    assert (second["sheets"], second["maps"][0]["variant"]) == (["picture"], MAX_COLUMNS)


def test_a_page_is_named_by_the_folder_that_a_link_leads_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path, 1)
    Path("latest").symlink_to("maps", target_is_directory=True)
    assert report(Path("latest")).page == Path("maps/report.html")


# ---- thumbnails


def test_a_thumbnail_lies_at_its_place_on_its_sheet(tmp_path):
    count = BLOCK + 2
    out = make_run(tmp_path, count)
    report(out)
    for number in (0, 9, BLOCK - 1, BLOCK + 1):
        for kind, colour in (("picture", (number * 40 % 256, 80, 160)), ("0", (230, 120, 20))):
            with Image.open(out / "report-files" / f"sheet-{number // BLOCK}-{kind}.webp") as sheet:
                assert sheet.size == (SIDE * CELL, SIDE * CELL)
                left, top = number % BLOCK % SIDE * CELL, number % BLOCK // SIDE * CELL
                found = sheet.convert("RGB").getpixel((left + SIZE[0] // 2, top + SIZE[1] // 2))
                corner = sheet.convert("RGB").getpixel((left + 4, top + 3))
            assert max(abs(a - b) for a, b in zip(found, colour, strict=True)) < 16, (number, kind)
            assert min(corner) > 225


def test_a_thumbnail_has_the_size_that_the_page_computes():
    assert fit_size(64, 48, 160) == (64, 48)  # not enlarged
    assert fit_size(320, 201, 160) == (160, 101)  # 100.5 is rounded up, as JavaScript does
    assert fit_size(100_000, 3, 160) == (160, 1)


@pytest.mark.parametrize("trouble", ["gone", "changed", "no image"])
def test_an_image_that_is_not_there_any_more_has_its_overlay_and_the_reason(tmp_path, trouble):
    out = make_run(tmp_path, 2)
    photo = tmp_path / "photos" / "tabby" / "00000.jpg"
    if trouble == "gone":
        photo.unlink()
    else:
        photo.write_bytes(b"no image" * (1 + (trouble == "changed")))
    assert "1 image is not shown: gone, changed or unreadable now" in report(out).notes
    first, second = read_items(out)
    assert first["missing"] == ("the image is gone" if trouble == "gone" else "the image was changed since")
    assert (first["sheets"], first["size"], "picture" in first) == (["0"], [*SIZE], False)
    assert "missing" not in second and "sheets" not in second


def test_an_image_given_from_another_folder_is_found_by_its_name_and_root(tmp_path):
    draw(tmp_path / "photos" / "a.jpg", (0, 0, 255))
    line = outcome(tmp_path / "photos" / "a.jpg", "photos/a.jpg", root=str(tmp_path))
    values = {
        "source": "photos/a.jpg",
        "name": line.name,
        "job": "j1",
        "run": "r1",
        "stamp": line.stamp,
        "root": line.root,
    }
    moved = type(line)(**values, files=line.files, method="gradcam", layer="layer4", peak=(1.0, 1.0))
    out = write_run(tmp_path / "maps", [moved])
    report(out)
    assert read_items(out)[0]["picture"] == "../photos/a.jpg"


def test_a_run_that_saved_arrays_alone_shows_its_images_and_says_what_save_adds(tmp_path):
    photo = tmp_path / "a.jpg"
    draw(photo, (0, 0, 255))
    out = write_run(tmp_path / "maps", [outcome(photo, "a.jpg", files={"array": "a.jpg.npy"})])
    [note] = report(out).notes
    assert "maps/run.json --save overlay,heatmap --report draws the maps from the arrays, without the network" in note
    assert read_items(out)[0]["sheets"] == ["picture"]
    assert "--save overlay,heatmap" in (out / "report.html").read_text()


def test_what_shows_maps_without_the_image_is_a_command_on_the_terminal_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [note] = report(make_run(tmp_path, 1)).notes
    assert note.endswith(": camcli explain --config maps/run.json --save overlay,heatmap --report")
    assert "heatmap" not in Path("maps/report.html").read_text().partition("<noscript>")[0].partition("<dialog")[0]


def test_files_outside_the_folder_are_not_read_whatever_a_record_names(tmp_path):
    photo = tmp_path / "a.jpg"
    draw(photo, (0, 0, 255))
    draw(tmp_path / "secret.jpg", (255, 0, 0))
    out = write_run(tmp_path / "maps", [outcome(photo, "a.jpg", files={"overlay": "../secret.jpg"})])
    report(out)
    assert read_items(out)[0]["sheets"] == ["picture"]


@pytest.mark.parametrize("file", ["//evil.example/x.png", "../../x.png", "/etc/x.png", "a.jpg/../../x.png"])
def test_the_page_has_no_address_outside_the_folder_whatever_a_record_names(tmp_path, file):
    photo = tmp_path / "a.jpg"
    draw(photo, (0, 0, 255))
    out = write_run(tmp_path / "maps", [outcome(photo, "a.jpg")])
    record = out / "outcomes.jsonl"
    record.write_text(record.read_text().replace('"a.jpg.overlay.jpg"', f'"{file}", "heatmap": "a.jpg.h.png"'))
    report(out)
    assert read_items(out)[0]["maps"][0]["files"] == {"heatmap": "*.h.png"}


def test_copied_images_make_the_folder_complete(tmp_path):
    out = make_run(tmp_path, 2)
    report(out, copy_images=True)
    for item in read_items(out):
        assert item["picture"] == f"report-files/copy-{item['id']}.jpg"
        assert (out / item["picture"]).read_bytes() == (tmp_path / item["name"]).read_bytes()


def test_what_browsers_cannot_show_is_copied_as_webp(tmp_path):
    photo = tmp_path / "a.tif"
    Image.new("RGB", SIZE, (10, 200, 30)).save(photo)
    out = write_run(tmp_path / "maps", [outcome(photo, "a.tif")])
    report(out)
    with Image.open(out / read_items(out)[0]["picture"]) as image:
        assert (image.format, image.size) == ("WEBP", SIZE)


def test_an_earlier_reports_files_go_and_others_stay(tmp_path):
    out = make_run(tmp_path, 2)
    files = out / "report-files"
    report(out, copy_images=True)
    (files / "sheet-7-0.webp").touch()
    (files / "mine.txt").touch()
    report(out)
    assert sorted(one.name for one in files.iterdir()) == [
        *("data-000.js", "mine.txt", "page.css", "page.js", "sheet-0-0.webp", "sheet-0-picture.webp")
    ]
    (files / "mine.txt").unlink()
    report(out, single_file=True)
    assert not files.exists()


def read_all(out):
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}


@pytest.mark.parametrize("first", [True, False])
def test_an_interrupted_report_leaves_the_earlier_one_as_it_was(tmp_path, monkeypatch, first):
    out = make_run(tmp_path, BLOCK + 1)
    if not first:
        report(out)
    for file in out.rglob("*.overlay.jpg"):
        draw(file, (0, 255, 0))
    before = read_all(out)

    def interrupt(*_given):
        raise KeyboardInterrupt

    monkeypatch.setattr("camcli.runs.report.run.describe_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report(out)
    assert read_all(out) == before
    assert (out / "report-files").exists() is not first


@pytest.mark.parametrize("single", [False, True])
def test_files_of_somebodys_own_stay_and_what_a_killed_report_left_goes(tmp_path, single):
    out = make_run(tmp_path, 1)
    report(out)
    files = out / "report-files"
    own = ["data.csv", "page.html", "copy-of-report.docx", "sheet-music.pdf", "sheet-1-2.webp.bak"]
    for name in own:
        (files / name).write_text("mine")
    (files / "data-007.js").symlink_to(files / "data.csv")
    (files / ".camcli-0123456789abcdef.tmp").mkdir()
    (files / ".camcli-0123456789abcdef.tmp" / "sheet-0-0.webp").touch()
    report(out, single_file=single)
    left = {one.name for one in files.iterdir()}
    assert left >= {*own, "data-007.js"} and not any(name.startswith(".") for name in left)
    assert not WrittenFiles()(str(files / "sheet-music.pdf"))


def test_a_folder_of_files_that_is_a_link_is_not_emptied(tmp_path):
    out = make_run(tmp_path, 1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "data-000.js").write_text("mine")
    (out / "report-files").symlink_to(other)
    report(out, single_file=True)
    assert (other / "data-000.js").read_text() == "mine"


def test_a_reports_files_are_not_taken_for_images_of_the_next_run(tmp_path):
    out = make_run(tmp_path, 1)
    report(out)
    assert WrittenFiles()(str(out / "report-files" / "sheet-0-picture.webp"))


# ---- names


@pytest.mark.parametrize("single", [False, True])
def test_hostile_names_are_data_in_every_file_of_the_page(tmp_path, single):
    blocks = []
    for name in HOSTILE:
        name = name.replace("|", "/")
        try:
            draw(tmp_path / name, (0, 0, 255))
        except (OSError, ValueError):
            pytest.skip("this file system does not take such names")
        blocks.append([outcome(tmp_path / name, name, label=f"</script><b>{name}", notes=(f"<img src=x> {name}",))])
    out = write_run(tmp_path / "maps", *blocks, model={"name": "<i>&'\"</i>\u202e\udcff", "notes": ["</script>"]})
    report(out, single_file=single)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert [item["name"] for item in read_items(out)] == [name.replace("|", "/") for name in HOSTILE]
    for code in ("<b>", "<img src=x", "<i>", "alert(1)</", "<script>alert"):
        assert code not in page
    # Characters that turn or hide text are written as escapes in all data.
    assert not {"\x1b", "\x07", "\udcff"} & set(page)
    assert page.count("<script") == page.count("</script>")
    assert page.count("<!-- data -->") == 0


def test_paths_are_addresses_byte_for_byte():
    assert quote_path("a b/ü#?%*.jpg") == "a%20b/%C3%BC%23%3F%25%2A.jpg"
    assert quote_path("bytes\udcff.jpg") == "bytes%FF.jpg"


# ---- numbers


def test_the_distance_of_a_peak_from_the_edge_by_hand():
    assert find_edge_distance((50.0, 10.0), (200, 100)) == pytest.approx(0.1)
    assert find_edge_distance((195.0, 50.0), (200, 100)) == pytest.approx(0.05)
    assert find_edge_distance((203.0, 50.0), (200, 100)) == 0


def test_reasons_are_grouped_without_numbers_and_quoted_names():
    assert group_reason("'a.jpg' has 12 pages\nmore") == group_reason("'b.jpg' has 3 pages") == "'...' has N pages"


def test_maps_of_one_target_are_compared_by_where_they_are_strongest(tmp_path):
    photo = tmp_path / "a.jpg"
    draw(photo, (0, 0, 255), (300, 400))
    peaks = {"gradcam": (0.0, 0.0), "layercam": (150.0, 200.0), "xgradcam": (10.0, 0.0)}
    maps = [outcome(photo, "a.jpg", method=name, peak=peak) for name, peak in peaks.items()]
    other = outcome(photo, "a.jpg", method="gradcam", index=4, peak=(300.0, 400.0))
    out = write_run(tmp_path / "maps", [*maps, other])
    report(out)
    assert read_items(out)[0]["apart"] == 0.5


# ---- refusals


def test_what_is_no_run_of_explain_and_a_run_without_images_are_told(tmp_path):
    with pytest.raises(NothingFoundError, match="is not the output folder of camcli explain"):
        report(tmp_path)
    with pytest.raises(NothingFoundError, match="has no finished images yet"):
        report(write_run(tmp_path / "maps"))
    with pytest.raises(RequestError, match="is in a store"):
        report(Path("s3:/bucket/maps"))


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(RequestError, match="--image-size is of a single file"):
        ReportOptions(image_size=100)
    with pytest.raises(RequestError, match="--copy-images is of a folder"):
        ReportOptions(copy_images=True, single_file=True)
