"""Two reports of one folder at a time: each leaves the other's unfinished files alone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from report_runs import make_run, read_items

from camcli.runs.report import ReportOptions
from camcli.runs.report import run as report_run
from camcli.runs.report.files import FolderFiles, remove_others


def test_a_folder_that_is_begun_while_others_are_cleared_stays(tmp_path: Path) -> None:
    """What a report has just made, and not locked yet, looks abandoned to another one that ends."""
    done = Event()

    def clear() -> None:
        while not done.is_set():
            remove_others(tmp_path / "report-files", ())

    with ThreadPoolExecutor() as pool:
        clearing = [pool.submit(clear) for _ in range(2)]
        try:
            for _ in range(150):
                files = FolderFiles(tmp_path)
                files.add_image("sheet-0-0", b"pixels")
                files.discard()
        finally:
            done.set()
        for one in clearing:
            one.result()


@pytest.mark.parametrize("single", [False, True])
def test_a_report_leaves_the_files_of_one_that_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single: bool
) -> None:
    out, describe, others = make_run(tmp_path, 2), report_run.describe_run, []

    def describe_after_another(*words):
        if not others:
            others.append(None)
            report_run.write_report(out, ReportOptions(single_file=single, workers=1))
        return describe(*words)

    monkeypatch.setattr(report_run, "describe_run", describe_after_another)
    report_run.write_report(out, ReportOptions(workers=1))
    assert len(read_items(out)) == 2
    left = {one.name for one in (out / "report-files").iterdir()}
    assert not any(name.startswith(".") for name in left)
    assert {one.partition("-")[0] for one in left} >= {"sheet", "data"}
