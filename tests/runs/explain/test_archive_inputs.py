"""A run over images in archives is one like any other: resumed, redrawn, with targets by path and by folder."""

import tarfile
from pathlib import Path

from shared import Go, Paint

from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job


def pack(paint: Paint) -> None:
    with tarfile.open("s.tar", "w") as file:
        for name, colour in (("green/a.png", (200, 100, 0)), ("blue/b.png", (0, 100, 200)), ("blue/bad.png", None)):
            if colour:
                file.add(paint("x.png", colour), name)
            else:
                file.addfile(tarfile.TarInfo(name))


def test_a_run_over_an_archive_is_resumed_and_redrawn(paint: Paint, go: Go, tiny: str) -> None:
    pack(paint)
    first, second, bad = go("s.tar", target=("folder",), save=("overlay", "array"))
    assert [one.label for one in (*first, *second)] == ["green", "blue"]
    assert bad[0].error == "the file is empty"
    assert first[0].files["overlay"] == "s/green/a.png.overlay.jpg"
    with Run(Job(model=tiny, inputs=("s.tar",), target=("folder",), save=("overlay", "array"), out="out")) as run:
        assert [bool(one.error) for outcomes in run for one in outcomes] == [True]
    (redrawn,), _, _ = go("s.tar", target=("folder",), save=("overlay", "array", "heatmap"))
    assert Path("out", redrawn.files["heatmap"]).is_file()


def test_targets_and_groups_know_images_in_archives_by_their_paths(paint: Paint, go: Go, here: Path) -> None:
    pack(paint)
    (here / "list.txt").write_text("s.tar/green/a.png\ns.tar/blue/b.png\n")
    (here / "t.csv").write_text("s.tar/green/a.png,red\ns.tar/blue/b.png,green\n")
    first, second = go("@list.txt", targets="t.csv")
    assert [one.label for one in (*first, *second)] == ["red", "green"]
