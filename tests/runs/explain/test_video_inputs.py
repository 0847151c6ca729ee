"""A run over a video is one like any other: resumed, with another step later, and refused without PyAV."""

import importlib.util
from pathlib import Path

import pytest
from films import film
from shared import Go

from camcli.base.errors import RequestError


def test_a_run_over_a_video_is_resumed(go: Go, here: Path) -> None:
    pytest.importorskip("av", reason="PyAV is an extra")
    (here / "in").mkdir()
    film("in/c.mp4", frames=25, rate=10)
    given = {"target": ("red",), "save": ("overlay", "array")}
    first = go("in", every="1s", **given)
    assert [one.name for (one,) in first] == [f"in/c.mp4.t000{time}.000s" for time in range(3)]
    assert [one.page for (one,) in first] == [1, 11, 21]
    assert first[1][0].shown == "in/c.mp4, frame 11"
    assert Path("out/in/c.mp4.t0001.000s.overlay.jpg").is_file()
    assert [len(one) for one in go("in", every="5", **given)] == [0, 1, 0, 1, 0]
    redrawn = go("in", every="1s", colormap="viridis", **given)
    assert [one.error for (one,) in redrawn] == [None] * 3


def test_videos_need_pyav_and_a_step_that_is_one(go: Go, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "in").mkdir()
    with pytest.raises(RequestError, match="every cannot be '1 second'"):
        go("in", every="1 second")
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "av" else found(name, *more))
    with pytest.raises(RequestError, match="need PyAV") as caught:
        go("in", every="1s")
    assert caught.value.hint == "pip install 'camcli-vision[video]'"
