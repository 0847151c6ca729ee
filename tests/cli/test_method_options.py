"""Options of methods: told, checked, and part of what a run records."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from commands import do
from readback import facts, files, ledger
from shared import RED, Bring, Paint

import camcli


def smooth(images, score_of, *, samples: int = 4, sigma: float = 0.5, mean: bool = True, way: Literal["a", "b"] = "a"):
    """Means over noisy images (Nobody 2026, eq. 1).

    Use: in tests.
    Not for: anything else.

    Args:
        samples: how many
            are drawn.
        sigma: of the noise, in units of the input.
        way: one of two.
    """
    return samples * sigma * images.mean(1).double() + (1 if way == "a" else 2) + mean


def test_a_method_is_told_with_its_options_whatever_the_terminal(bring: Bring, monkeypatch) -> None:
    bring(smooth, cost="4 forwards")
    tables = []
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        tables.append(do("methods", "smooth").stdout)
    assert tables[0] == tables[1]
    assert tables[0].splitlines() == [
        "smooth\tinput\t4 forwards\tbrought in by a test\t",
        "",
        "Means over noisy images (Nobody 2026, eq. 1).",
        "",
        "Use: in tests.",
        "Not for: anything else.",
        "",
        "Options, by -o name=value:",
        "samples\tan integer\t4\thow many are drawn.",
        "sigma\ta number\t0.5\tof the noise, in units of the input.",
        "mean\ttrue or false\ttrue\t",
        "way\ta, b\ta\tone of two.",
    ]
    # A product tells of its parts.
    told = do("methods", "guided-gradcam").stdout
    assert "Springenberg 2015, fig. 1" in told
    assert "Selvaraju 2017, eq. 1 and 2" in told


def test_options_change_the_map_the_fingerprint_and_run_json(bring: Bring, paint: Paint, tiny: str) -> None:
    bring(smooth)
    paint("a.png", RED)
    words = ("explain", "-m", tiny, "a.png", "--method", "smooth", "--save", "array")
    assert do(*words, "--out", "one").exit_code == 0
    result = do(*words, "--out", "two", "-o", "samples=8", "-o", "smooth.sigma=2", "--option", "way=b", "-o", "mean=no")
    assert result.exit_code == 0, result.stderr
    one, two = (np.load(f"{out}/a.png.npy") for out in ("one", "two"))
    np.testing.assert_allclose(two - 2, (one - 2) * 8, rtol=1e-6)
    assert facts("two")["methods"][0]["options"] == {"samples": 8, "sigma": 2.0, "mean": False, "way": "b"}
    assert facts("one")["fingerprint"] != facts("two")["fingerprint"]
    assert do("explain", "--config", "two/run.json", "--trust-config", "--out", "three").exit_code == 0
    np.testing.assert_array_equal(np.load("three/a.png.npy"), two)
    again = camcli.explain(
        "a.png", model=tiny, method="smooth", options={"samples": 8, "sigma": 2.0, "mean": False, "way": "b"}
    )
    np.testing.assert_array_equal(next(iter(again)).map, two)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["-o", "sample=8"], "smooth has no option 'sample'", "did you mean 'samples'?"),
        (["-o", "x=8"], "smooth has no option 'x'", "there are: mean, samples, sigma, way"),
        (["-o", "samples=a few"], "smooth: samples cannot be 'a few'", "an integer"),
        (["-o", "samples=1.5"], "smooth: samples cannot be '1.5'", "an integer"),
        (["-o", "sigma=nan"], "smooth: sigma cannot be 'nan'", "finite"),
        (["-o", "mean=perhaps"], "smooth: mean cannot be 'perhaps'", "true or false"),
        (["-o", "way=c"], "smooth: way cannot be 'c'", "there are: a, b"),
        (
            ["-o", "gradcam.samples=8"],
            "the method 'gradcam', which this run does not use",
            "methods of this run: smooth",
        ),
        (["-o", "maps"], "the option 'maps' is not name=value", "--out"),
        (["-o", "=3"], "the option '=3' is not name=value", ""),
        (["--method", "gradcam", "-o", "samples=8"], "gradcam has no option 'samples'", "there are none"),
        (
            ["--fuse", "max", "--method", "gradcam"],
            "several layers are fused, but there is one: body",
            "--layer layer3",
        ),
        (["--fuse", "max"], "the maps of several layers can be fused", ""),
        (
            ["--fuse", "paper", "--method", "gradcam", "-l", "stem", "-l", "body"],
            "does not define how maps",
            "--fuse mean",
        ),
        (["--scales", "0.5,x"], "scales cannot be '0.5,x'", "0.75,1,1.25"),
        (["--augment", "turn"], "augment cannot be 'turn'", "flip, flip-vertical"),
        (["--eigen-smooth"], "not computed from activations and gradient alone", "gradcam or hirescam"),
    ],
)
def test_what_cannot_be_asked_of_a_method_is_refused_before_the_first_picture(
    bring: Bring, paint: Paint, tiny: str, words: list[str], message: str, hint: str
) -> None:
    bring(smooth)
    paint("a.png", RED)
    method = [] if "--method" in words else ["--method", "smooth"]
    result = do("explain", "-m", tiny, "a.png", "--out", "out", *method, *words)
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2
    assert message in said
    assert hint in said
    assert not Path("out").exists() or not files()


def test_several_methods_have_files_of_their_own(bring: Bring, paint: Paint, tiny: str) -> None:
    bring(smooth)
    paint("a.png", RED, box=(0, 0, 16, 16))
    words = ("explain", "-m", tiny, "a.png", "--out", "out", "--save", "array")
    assert do(*words, "--method", "gradcam,hirescam", "--method", "smooth", "-o", "samples=2").exit_code == 0
    assert files() == ["a.png.gradcam.npy", "a.png.hirescam.npy", "a.png.smooth.npy"]
    assert [(row["method"], row["layer"], row["part"]) for row in ledger()] == [
        ("gradcam", "body", "1/3"),
        ("hirescam", "body", "2/3"),
        ("smooth", "", "3/3"),
    ]
    Path("job.toml").write_text('method = "hirescam, gradcam"\nlayers = ["stem", "body"]\nfuse = "mean"\n')
    result = do(*words[:4], "--config", "job.toml", "--out", "two", "--save", "array")
    assert result.exit_code == 0, result.stderr
    assert files("two") == ["a.png.gradcam.npy", "a.png.hirescam.npy"]
    assert {row["layer"] for row in ledger("two")} == {"stem+body"}
    assert "methods: hirescam, gradcam at stem, body" in result.stderr
