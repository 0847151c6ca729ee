"""Checkpointing as an option: what is said where it changes nothing, what is left as it is, the shell, its old name."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Plain, pictures, seeded
from readback import facts
from torch import nn
from typer.testing import CliRunner
from waves import Waves

import camcli
from camcli import Explainer, Job, RequestError
from camcli.cli import app
from camcli.engine.hooks.checkpointing import measure_kept


class Counting(nn.Module):
    """Says something else each time."""

    def __init__(self):
        super().__init__()
        self.runs = 0
        self.conv = seeded(nn.Conv2d(3, 4, 1))

    def forward(self, x):
        self.runs += 1
        return self.conv(x[:, :3]).sin().cos().exp() * self.runs


class Around(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        return self.parts(x).square().mean((2, 3))


@pytest.mark.parametrize(
    ("model", "method", "words"),
    [
        (Around(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), "saliency", "no part of the network stores much more"),
        (
            Around(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)),
            "rise",
            "no activations are stored for a backward pass",
        ),
        (
            Around(Counting(), Counting()),
            "saliency",
            "the parts of the network give a different output when they are recomputed",
        ),
    ],
)
def test_where_it_changes_nothing_that_is_said(model, method, words):
    model = model.double().eval()
    explain = Explainer(model, method=method, recompute=True, options={"samples": 20} if method == "rise" else {})
    explain.check(pictures(1, 16))
    assert f"--recompute has no effect here: {words}" in " ".join(explain.notes)
    assert explain.findings.plan.checkpointed_modules == ()
    assert not any("recompute" in note for note in Explainer(model, method="saliency").notes)


def test_parts_that_fail_when_they_run_again_are_left_as_they_are():
    class Once(Waves):
        """As modules do that keep something from one call to the next."""

        def __init__(self):
            super().__init__()
            self.turns: list[int] = []

        def forward(self, x):
            self.turns.append(1)
            return super().forward(x).sin() if len(self.turns) == 1 else super().forward(x)

    class Turning(Around):
        def forward(self, x):
            for part in self.parts:
                part.turns.clear()
            return super().forward(x)

    model = Turning(*(Once() for _ in range(4)))
    explain = Explainer(model, method="saliency", recompute=True)
    [[one]] = explain(pictures(1, 16), 1)
    assert "--recompute has no effect here: the parts of the network cannot be recomputed" in explain.notes[-1]
    [[plain]] = Explainer(model, method="saliency")(pictures(1, 16), 1)
    assert np.array_equal(one.map, plain.map)


@pytest.mark.filterwarnings("ignore")
def test_compiled_parts_are_left_as_they_are():
    model, image = Around(*(Waves() for _ in range(9))), pictures(1, 4)
    model.parts[1] = torch.jit.trace(Waves(), image)
    with measure_kept(model) as whole:
        model(image.requires_grad_())
    assert [call.can_recompute for call in whole.children] == [False]
    assert [call.module for call in whole.children[0].children] == [model.parts[0], *model.parts[2:]]
    plain, again = (Explainer(model, method="saliency", recompute=one)(image.detach(), 1) for one in (False, True))
    assert np.array_equal(plain[0][0].map, again[0][0].map)


def test_with_biases_kept_for_fullgrad_the_parts_still_add_up():
    class Blocks(Plain):
        def forward(self, x):
            return super().forward(F.silu(x))

    images = pictures(2, 16)
    plain, again = (Explainer(Blocks(), method="fullgrad", recompute=one)(images, 1) for one in (False, True))
    for [one], [other] in zip(plain, again, strict=True):
        assert np.abs(one.map - other.map).max() <= 1e-6 * np.abs(one.map).max()


# ---- from the shell


def test_from_the_shell_to_run_json(here, paint):
    paint("a.png", box=(4, 4, 20, 20))
    paint("b.png", box=(8, 0, 20, 20))
    asked = [
        "explain",
        "-m",
        "timm:test_vit",
        "--weights",
        "random",
        "--method",
        "saliency",
        "--save",
        "array",
        "a.png",
    ]
    result = CliRunner().invoke(app, [*asked, "b.png", "--out", "plain"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, [*asked, "b.png", "--out", "again", "--recompute"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "7 parts of the network, from 'blocks.0' on, are recomputed in the backward pass: about" in said
    assert facts("again")["job"]["recompute"] is True
    assert facts("again")["fingerprint"] == facts("plain")["fingerprint"]
    assert any("recomputed" in note for note in facts("again")["notes"])
    for name in ("a.png.untrained.npy", "b.png.untrained.npy"):
        one, other = np.load(Path("plain") / name), np.load(Path("again") / name)
        assert np.abs(one - other).max() <= 1e-6 * np.abs(one).max()
    # The environment says it too, and another run that keeps everything goes on where this one stopped.
    result = CliRunner().invoke(app, [*asked, "--out", "third"], env={"CAMCLI_RECOMPUTE": "1"})
    assert "recomputed" in " ".join(result.stderr.split())
    result = CliRunner().invoke(app, [*asked, "b.png", "--out", "third"])
    assert result.exit_code == 0
    assert "recomputed" not in result.stderr
    assert "1 done before" in " ".join(result.stderr.split())


def test_what_it_does_is_no_part_of_what_is_asked():
    assert Job(recompute=True).fingerprint == Job().fingerprint


def test_its_old_name_still_works_and_takes_no_file(here, paint, monkeypatch):
    paint("a.png")
    (here / "job.toml").write_text(
        'model = "timm:test_vit"\nweights = "random"\nmethod = "saliency"\ncheckpoint = true\n'
    )
    result = CliRunner().invoke(app, ["explain", "a.png", "--config", "job.toml", "--out", "one"])
    assert result.exit_code == 0, result.output
    assert "checkpoint is called recompute now" in result.stderr
    assert facts("one")["job"]["recompute"] is True
    result = CliRunner().invoke(app, ["explain", "a.png", "--checkpoint", "--out", "two", "--method", "saliency"])
    assert "--checkpoint is called --recompute now" in result.stderr
    assert facts("two")["job"]["recompute"] is True
    # What an earlier version wrote needs no word.
    (here / "run.json").write_text('{"job": {"model": "timm:test_vit", "weights": "random", "checkpoint": false}}')
    result = CliRunner().invoke(app, ["explain", "a.png", "--config", "run.json", "--out", "three"])
    assert result.exit_code == 0, result.output
    assert "called recompute" not in result.stderr
    (here / "job.toml").write_text('checkpoint = "best.ckpt"\n')
    result = CliRunner().invoke(app, ["explain", "a.png", "--config", "job.toml"])
    assert result.exit_code == 2
    assert "weights = 'best.ckpt'" in " ".join(result.stderr.split())
    with pytest.warns(FutureWarning, match="recompute"):
        assert list(camcli.explain("a.png", model="timm:test_vit", weights="random", checkpoint=True))
    with pytest.raises(RequestError, match="not a file") as caught:
        camcli.explain("a.png", checkpoint="best.ckpt")
    assert "weights='best.ckpt'" in caught.value.hint
