"""A run over images in archives or stores is one like any other: resumed, redrawn, with targets by path and folder."""

import tarfile
from pathlib import Path

import fsspec
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


def test_a_run_over_a_store_is_resumed(paint: Paint, go: Go) -> None:
    store = fsspec.filesystem("memory")
    for name, colour in (("a", (200, 100, 0)), ("b", (0, 100, 200))):
        store.pipe_file(f"bucket/{name}.png", paint("x.png", colour).read_bytes())
    try:
        first, _ = go("memory://bucket/*.png", target=("green",))
        assert first[0].files["overlay"] == "%memory/bucket/a.png.overlay.jpg"
        assert '"source": "memory://bucket/b.png"' in Path("out/outcomes.jsonl").read_text()
        store.pipe_file("bucket/b.png", paint("x.png", (10, 100, 200)).read_bytes())
        assert [bool(one) for one in go("memory://bucket/*.png", target=("green",))] == [False, True]
    finally:
        store.store.clear()


def test_classes_come_from_files_beside_the_images_of_an_archive(paint: Paint, go: Go, here: Path) -> None:
    with tarfile.open("s.tar", "w") as file:
        for key, told in (("a", "1"), ("b", "blue"), ("c", "9"), ("d", "")):
            file.add(paint("x.png", (200, 100, 50)), f"{key}.png")
            (here / "x").write_text(told)
            file.add(here / "x", f"{key}.cls")
    first, second, unknown, none = go("s.tar", target=("dataset",))
    assert [one.label for one in (*first, *second)] == ["green", "blue"]
    assert unknown[0].error is not None
    assert "class 9 is none of the model: there is no class 9" in unknown[0].error
    assert none[0].error is not None
    assert "gives it no class" in none[0].error
