"""sMPRT: maps averaged over noisy copies, against a case worked by hand; and all parts drawn anew at once (eMPRT)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import do
from shared import BLUE, GREEN, Paint

from camcli.runs.job.job import Job
from camcli.runs.sanity import SanityJob, SanityRow
from camcli.runs.sanity.compare import Similarities
from camcli.runs.sanity.means import MeanMaps
from camcli.runs.sanity.run import SanityRun

LINEAR = '''
import camcli
import torch

class Linear(torch.nn.Module):
    """Score 0 is the sum of the pixels, and score 1 that of their squares, each times its place."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(3 * 8 * 8.0).reshape(3, 8, 8) / 100 - 0.5)

    def forward(self, images):
        return torch.stack([(images * self.weight).sum((1, 2, 3)), (images**2 * self.weight).sum((1, 2, 3))], 1)

def make():
    return Linear(), camcli.Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3), ("even", "odd")
'''


@pytest.fixture
def linear(here: Path, paint: Paint) -> str:
    Path("linear.py").write_text(LINEAR)
    paint("in/a.png", GREEN, size=(8, 8), box=(1, 2, 5, 6), ground=BLUE)
    return "linear.py:make"


def start(linear: str, method: str = "input-x-gradient", **words) -> SanityRun:
    job = Job(model=linear, inputs=("in",), method=method, target=("odd",), seed=3)
    return SanityRun(SanityJob(job=job, **words))


def test_maps_are_means_over_noisy_copies(linear: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of score 1 the map is 2 w x^2, so its mean over copies is 2 w times that of the squares of the copies."""
    compared: list[np.ndarray] = []
    monkeypatch.setattr(Similarities, "add", lambda _, before, after, view: compared.extend([before, after]))
    [_] = start(linear, samples=5, noise=0.2, tests=("repeat",))
    x = torch.tensor(BLUE).float()[:, None, None].repeat(1, 8, 8)
    x[:, 2:6, 1:5] = torch.tensor(GREEN).float()[:, None, None]
    x = x / 127.5 - 1
    source = torch.Generator().manual_seed(3)
    copies = [x + 0.2 * (x.max() - x.min()) * torch.randn(1, 3, 8, 8, generator=source)[0] for _ in range(5)]
    weight = torch.arange(3 * 8 * 8.0).reshape(3, 8, 8) / 100 - 0.5
    worked = 2 * weight * sum(copy**2 for copy in copies) / 5
    assert len(compared) == 2
    assert not np.allclose(compared[0], 2 * weight * x**2, atol=0.1)
    for map in compared:
        np.testing.assert_allclose(map, worked, rtol=1e-4, atol=1e-5)


def rows_of(run: SanityRun) -> dict[str, SanityRow]:
    return {row.test: row for rows in run for row in rows}


def test_the_same_copies_are_explained_each_time(linear: str) -> None:
    found = rows_of(start(linear, "saliency", samples=3, tests=("repeat", "shift", "class", "full")))
    assert (found["repeat"].equal, found["repeat"].maps) == (1, 1)
    assert found["shift"].pearson == pytest.approx(1, abs=1e-5)
    assert found["class"].pearson < 1


def test_all_parts_at_once_are_the_last_step_of_the_cascade(linear: str) -> None:
    run = start(linear, tests=("cascade", "full"))
    found = rows_of(run)
    assert (found["full"].part, found["full"].share) == ("(all)", 1)
    assert (found["full"].rise, found["full"].pearson) == (found["cascade"].rise, found["cascade"].pearson)
    [verdict] = [one for one in run.verdicts if one.test == "full"]
    assert verdict.passes is None
    assert verdict.value == found["full"].rise


def test_a_map_that_one_copy_lacks_has_no_mean() -> None:
    means, one, other = MeanMaps(), np.ones((2, 2), np.float32), np.full((2, 2), 3, np.float32)
    means.add({("m", "", 0): one, ("m", "", 1): one})
    means.add({("m", "", 0): other})
    [(key, map)] = means.compute().items()
    assert key == ("m", "", 0)
    np.testing.assert_array_equal(map, 2 * one)


def test_the_command_says_what_is_averaged(linear: str) -> None:
    result = do("sanity", "in", "-m", linear, "--method", "saliency", "--target", "odd", "--samples", "2")
    assert "maps: means over 2 copies of each image with noise of 0.1 of its range" in result.output
    assert "1 of 1 map is equal to the bit" in " ".join(result.output.split())
