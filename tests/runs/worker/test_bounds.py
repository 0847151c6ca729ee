"""What is under way of a run is bounded: in pixels, in seconds, in images on the device; names may come slowly."""

import io
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from shared import Paint

import camcli
from camcli.images import decode
from camcli.images.find import find
from camcli.images.name_stream import peek, read_entries
from camcli.images.source import PAUSE, PictureSource
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.runs.worker import pipeline, prepare, resources
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import decode_batches, stream_results
from camcli.runs.worker.worker import Worker


def made(model: str, **more) -> Worker:
    return Worker(Job(model=model, device="cpu", layers=("stem",), **more))


def items(*paths) -> list[Item]:
    return [Item(PictureSource(str(path), str(path))) for path in paths]


# ---- pixels


@pytest.fixture
def small_room(monkeypatch):
    """Images of 40 x 40 are what those of 179 megapixels are to a machine."""
    monkeypatch.setattr(resources, "BATCH_PIXELS", 1_000)


def test_pixels_under_way_are_bounded_whatever_the_first_picture_is(paint: Paint, tiny: str, small_room, monkeypatch):
    paths = [paint("small.png", size=(2, 2)), *(paint(f"{n}.png", size=(40, 40)) for n in range(12))]
    decoding, lock = [0, 0], threading.Lock()
    decode_reduced = decode.decode_reduced

    def counted(*given, **named):
        admit = named.pop("admit")

        def admitted(pixels):
            admit(pixels)
            with lock:
                decoding[0] += pixels
                decoding[1] = max(decoding)

        return decode_reduced(*given, **named, admit=admitted)

    monkeypatch.setattr(prepare, "decode_reduced", counted)
    sizes = []
    for batch in decode_batches(made(tiny, workers=4), items(*paths)):
        sizes.append(len(batch))
        while batch:
            with lock:
                decoding[0] -= batch[0].held_pixels
            del batch[0]
    assert sizes == [1, *[1] * 12]
    # The room is for three batches of 1,000 pixels, and an image of 1,600 is beside no other.
    assert decoding[1] <= 3_000


def test_ordinary_pictures_fill_their_batches(paint: Paint, tiny: str):
    path = paint("a.png", size=(300, 200))
    assert [len(batch) for batch in decode_batches(made(tiny, batch_size=8), items(*[path] * 40))] == [8] * 5


def test_a_batch_ends_where_the_next_picture_would_make_it_too_large(paint: Paint, tiny: str, monkeypatch):
    monkeypatch.setattr(resources, "BATCH_PIXELS", 10_000)
    sides = [50, 50, 50, 50, 90, 50, 30, 120, 10, 10]
    paths = [paint(f"{n}.png", size=(side, side)) for n, side in enumerate(sides)]
    batches = decode_batches(made(tiny), items(*paths))
    assert [[int(item.source.path.stem) for item in batch] for batch in batches] == [
        [0, 1, 2, 3],
        [4],
        [5, 6],
        [7],
        [8, 9],
    ]


def test_maps_of_large_and_small_pictures_are_all_there(paint: Paint, go, here: Path, small_room):
    for number in range(10):
        paint(f"in/{number}.png", (200, number, 0), size=(40, 40) if number % 3 else (8, 8))
    outcomes = go("in", layers=("stem",), save=("array", "overlay"))
    assert [(one.name, one.error) for [one] in outcomes] == [(f"in/{n}.png", None) for n in range(10)]


def test_a_group_larger_than_the_room_is_done_as_a_whole(paint: Paint, go, small_room):
    began = time.monotonic()
    for number in range(6):
        paint(f"in/{number}.png", size=(40, 40))
    outcomes = go("in", layers=("stem",), group="6")
    assert [one.error for [one] in outcomes] == [None] * 6
    assert time.monotonic() - began < 25  # it does not wait for what its own images hold


# ---- seconds


def test_a_picture_that_takes_too_long_fails_and_the_others_are_done(paint: Paint, go, here, monkeypatch):
    for name in "abcdef":
        paint(f"in/{name}.png")
    go_on = threading.Event()
    decode_reduced = decode.decode_reduced

    def slow(path, *given, **named):
        if path.stem in "ce":
            go_on.wait(60)
        return decode_reduced(path, *given, **named)

    monkeypatch.setattr(prepare, "decode_reduced", slow)
    outcomes = go("in", layers=("stem",), timeout=0.3, workers=2)
    went = {one.name: one.error for [one] in outcomes}
    assert [name for name, error in went.items() if error] == ["in/c.png", "in/e.png"]
    assert "was not decoded within 0.3 s (raise --timeout SECONDS" in went["in/c.png"]
    go_on.set()


HANGS = """
import threading
from camcli.runs.worker import prepare
read = prepare.decode_reduced
def hangs(path, *given, **named):
    if path.stem == "b":
        threading.Event().wait()
    return read(path, *given, **named)
prepare.decode_reduced = hangs
from camcli.cli import main
main()
"""


def test_a_process_ends_whatever_hangs(paint: Paint, tiny: str, command: list[str]):
    for name in "abc":
        paint(f"in/{name}.png")
    words = [
        command[0],
        "-c",
        HANGS,
        "explain",
        "in",
        "--model",
        tiny,
        "--timeout",
        "0.5",
        "--out",
        "out",
        "-l",
        "stem",
    ]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1, ended.stderr
    assert "in/b.png: was not decoded within 0.5 s" in ended.stderr
    assert "2 done, 1 failed" in ended.stderr


# ---- memory


def test_a_picture_that_lacked_memory_beside_others_is_decoded_by_itself(paint: Paint, tiny, monkeypatch):
    for number in range(6):
        paint(f"in/{number}.png")
    tries: list[str] = []
    decode_reduced = decode.decode_reduced

    def short(path, *given, **named):
        tries.append(path.stem)
        if path.stem in "25" and tries.count(path.stem) == 1:
            try:
                raise MemoryError
            except MemoryError as error:
                raise camcli.PictureError("does not fit into memory") from error
        return decode_reduced(path, *given, **named)

    monkeypatch.setattr(prepare, "decode_reduced", short)
    with Run(Job(model=tiny, inputs=("in",), out="out", layers=("stem",), device="cpu")) as run:
        outcomes = [one for [one] in run]
    assert [one.error for one in outcomes] == [None] * 6
    assert tries.count("2") == tries.count("5") == 2
    assert len([note for note in run.notes if "memory ran short" in note]) == 1


def test_a_picture_that_never_fits_fails_alone(paint: Paint, go, monkeypatch):
    for number in range(4):
        paint(f"in/{number}.png")

    def whole(image, behind):
        if image.size == (7, 7):
            raise MemoryError
        return read(image, behind)

    read = decode.to_rgb
    monkeypatch.setattr(decode, "to_rgb", whole)
    paint("in/1.png", size=(7, 7))
    outcomes = go("in", layers=("stem",))
    assert [one.error for [one] in outcomes] == [None, "does not fit into memory", None, None]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_what_fits_is_remembered_and_said_once(paint: Paint, tiny: str, error, monkeypatch):
    paths = [paint(f"{n}.png", (200, n, 0)) for n in range(40)]
    one = made(tiny, batch_size=16)
    results, sizes = pipeline.find_results, []

    def short(worker, explainer, ready):
        sizes.append(len(ready))
        if len(ready) > 5:
            raise error
        return results(worker, explainer, ready)

    monkeypatch.setattr(pipeline, "find_results", short)
    found = list(stream_results(one, items(*paths)))
    assert [item.source.path for item in found] == paths
    assert all(len(item.results) == 1 and isinstance(item.results[0], camcli.Explanation) for item in found)
    # 16 do not fit, nor do 8; then no more than 4 are tried, of the second batch too.
    assert sizes == [16, 8, *[4] * 4, *[4] * 4, *[4] * 2]
    assert [note for note in one.notes if "memory" in note] == [
        "cpu does not have enough memory for 16 images at a time: 4 from then on (--batch-size 4)"
    ]


def test_a_picture_for_which_memory_is_never_enough_fails_and_no_other(paint: Paint, tiny: str, monkeypatch):
    paths = [paint(f"{n}.png", (200, n, 0)) for n in range(8)]
    one = made(tiny, batch_size=4)
    results = pipeline.find_results

    def short(worker, explainer, ready):
        if any(item.source.path == paths[2] for item in ready):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return results(worker, explainer, ready)

    monkeypatch.setattr(pipeline, "find_results", short)
    went = [isinstance(item.results[0], camcli.Explanation) for item in stream_results(one, items(*paths))]
    assert went == [number != 2 for number in range(8)]


# ---- names that come slowly


def test_names_come_as_they_are_written_and_a_pause_is_told():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream, os.fdopen(write, "wb", buffering=0) as pipe:
        names = read_entries(stream, b"\n", timeout=0.05)
        pipe.write(b"\xef\xbb\xbfa\r\nb\n\nc")
        assert [next(names), next(names), next(names)] == [b"a", b"b", None]
        pipe.write(b"d\n")
        assert next(names) == b"cd"
        pipe.write(b"e")
        pipe.close()
        assert list(names) == [b"e"]


def test_bytes_and_files_have_no_pauses(tmp_path):
    assert list(read_entries(io.BytesIO(b"a\0b\n\0\0c"), b"\0")) == [b"a", b"b\n", b"c"]
    (tmp_path / "list").write_bytes(b"a\r\nb\n")
    with (tmp_path / "list").open("rb") as stream:
        assert list(read_entries(stream, b"\n")) == [b"a", b"b"]


def test_a_pause_is_no_picture_and_is_not_dropped_as_one_named_twice(here: Path):
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream:
        sources = find(["-"], out=Path("out"), stdin=stream)
        assert [next(sources), next(sources)] == [PAUSE, PAUSE]
        os.write(write, b"nowhere.png\n")
        assert next(sources).name == "nowhere.png"
        os.close(write)
        assert next(sources, None) is None


def test_names_that_were_looked_at_are_there():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream, os.fdopen(write, "wb", buffering=0) as file:
        assert peek(stream) == b""
        file.write(b"a\n")
        assert (peek(stream), peek(stream)) == (b"a\n", b"a\n")
        names = read_entries(stream, b"\n", timeout=0.05)
        assert [next(names), next(names)] == [b"a", None]
        file.write(b"b\n")
        assert next(names) == b"b"


def test_names_that_come_slowly_have_their_outcomes_at_once(paint: Paint, tiny: str, command: list[str]):
    for name in "abcde":
        paint(f"{name}.png")
    words = [*command, "explain", "-", "--model", tiny, "--out", "out", "--json", "--layer", "stem"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin
        assert process.stdout
        for name in "abc":
            # Each is read before the next is named, though a batch is of 16.
            process.stdin.write(f"{name}.png\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["name"] == f"{name}.png"
        process.stdin.write(b"d.png\ne.png\n")
        process.stdin.close()
        assert [json.loads(line)["name"] for line in process.stdout] == ["d.png", "e.png"]
        assert process.wait(60) == 0


def test_groups_take_no_notice_of_pauses(paint: Paint, tiny: str):
    for name in "abcd":
        paint(f"{name}.png")
    read, write = os.pipe()

    def write_slowly() -> None:
        for name in "abcd":
            time.sleep(0.7)
            os.write(write, f"{name}.png\n".encode())
        os.close(write)

    threading.Thread(target=write_slowly).start()
    job = Job(model=tiny, inputs=("-",), out="out", group="2", device="cpu", layers=("stem",))
    with os.fdopen(read, "rb") as stream, Run(job, stdin=stream) as run:
        outcomes = [(one.name, one.error) for [one] in run]
    assert outcomes == [(f"{name}.png", None) for name in "abcd"]
