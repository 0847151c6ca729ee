"""Networks that do not say the same twice, or say of an image what depends on the others in its batch."""

import pytest
import torch
import torch.nn.functional as F
from networks import Small, Through, pictures, same, untouched
from torch import nn

from camcli import Explainer, Labels, Network, OutputSpec, PictureError, Preprocess
from camcli.engine.checks.trial import try_scores_on_noise
from camcli.runs.job.job import Job
from camcli.runs.worker.worker import Worker


class Dropping(Small):
    """Dropout by the function, which is on whatever mode the network is in."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Through(lambda x: F.dropout(x, 0.5))

    def forward(self, x):
        return self.head(super().forward(x))


class Normed(Small):
    """A batch norm without running statistics takes those of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(5, track_running_stats=False).double()


class Centred(Small):
    """Scores less the batch's mean."""

    def forward(self, x):
        scores = super().forward(x)
        return scores - 0.5 * scores.mean(0)


def test_a_network_that_draws_is_told_of_with_how_much_and_why():
    torch.manual_seed(0)  # by chance all four scores may be dropped
    model = Dropping()
    explain = Explainer(model, layers=["conv2"])
    with untouched(model):
        explain.check(pictures(1, 16))
    start = "the model's output is not deterministic: on noise its scores change between runs by "
    [note] = [note for note in explain.notes if note.startswith(start)]
    assert "(dropout is called with training=True in 'head' (Through))" in note
    assert "maps differ from run to run" in note
    assert not explain.one_by_one


def test_dropout_that_evaluation_switches_off_is_nothing_to_tell():
    explain = Explainer(nn.Sequential(Small(), nn.Dropout(0.5)).train(), layers=["0.conv2"])
    explain.check(pictures(1, 16))
    assert explain.notes == ()


@pytest.mark.parametrize(
    ("kind", "why"),
    [(Normed, " (a batch norm uses batch statistics in 'norm1' (BatchNorm2d))"), (Centred, "")],
)
def test_where_the_batch_matters_each_image_is_explained_by_itself(kind, why):
    model, images = kind(), pictures(3, 16)
    explain = Explainer(model, layers=["conv2"])
    with untouched(model):
        together = explain(images, [1, 2, 3])
    [note] = [note for note in explain.notes if "depends on the others in its batch" in note]
    assert explain.one_by_one
    assert f"beside another{why}; each image is explained in a batch of its own" in note
    for row, [one] in enumerate(together):
        image = images[row : row + 1]
        with torch.no_grad():
            assert one.score == pytest.approx(float(model(image)[0, row + 1]))
        same(one, Explainer(model, layers=["conv2"])(image, [row + 1])[0][0])


def test_variants_of_an_image_are_asked_about_one_by_one_too():
    model, images = Normed(), pictures(2, 16)
    by_one = Explainer(model, layers=["conv2"], method="ablation-cam", batch_size=1)
    by_eight = Explainer(model, layers=["conv2"], method="ablation-cam", batch_size=8)
    for [one], [other] in zip(by_one(images, 1), by_eight(images, 1), strict=True):
        same(one, other)
    by_one, by_eight = (Explainer(model, method="occlusion", batch_size=rows) for rows in (1, 8))
    for [one], [other] in zip(by_one(images, 1), by_eight(images, 1), strict=True):
        same(one, other)


def test_how_far_scores_move_is_measured_against_the_greatest():
    # The second image of a pair adds 1/8 of its own score to the first's: 3 x 1/8 against a greatest of 4.
    def run(images):
        scores = images.mean((1, 2, 3))[:, None]
        return torch.cat([scores, -scores], 1) + scores.flip(0)[:, :1].expand(-1, 2) * (len(images) - 1) / 8

    one, other = torch.full((1, 3, 4, 4), 4.0), torch.full((1, 3, 4, 4), 3.0)
    found = try_scores_on_noise(nn.Identity(), run, one, torch.cat([one, other]))
    assert found.change_between_runs == 0
    # 4 + 3/8 is then the greatest of all.
    assert found.change_in_batch == pytest.approx(0.375 / 4.375)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_no_movement(dtype):
    model = nn.Sequential(*[nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()) for _ in range(20)], nn.Flatten())
    model = nn.Sequential(model, nn.Linear(3 * 32 * 32, 5)).to(dtype).eval()
    explain = Explainer(model, layers=["0.10"])
    explain.check(pictures(1, 32, dtype=dtype))
    assert not explain.one_by_one
    assert not any("scores change" in note for note in explain.notes)


def test_scores_that_cancel_out_in_one_image_are_compared_with_those_of_another():
    # Of the first image the sum is all rounding; of the other it is 1.
    def run(images):
        noise = 1e-7 * (len(images) - 1)
        return torch.cat([images[:, 0, 0, :1] + noise, images[:, 0, 0, :1]], 1)

    pair = torch.zeros(2, 3, 4, 4)
    pair[1] = 1
    assert try_scores_on_noise(nn.Identity(), run, pair[:1], pair).change_in_batch == 0


NET = """
import camcli
from torch import nn
class Net(nn.Sequential):
    pass
def make():
    net = Net(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, track_running_stats={tracked}), nn.ReLU(), nn.Conv2d(5, 4, 3))
    net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    return net, camcli.Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3, (16, 16)), list("abcd")
"""


def test_a_run_goes_picture_by_picture_then_and_its_fingerprint_counts_that(tmp_path, monkeypatch):
    def worker(tracked):
        file = tmp_path / "net.py"
        file.write_text(NET.format(tracked=tracked))
        torch.manual_seed(0)
        return Worker(Job(inputs=(), model=f"{file}:make", out=str(tmp_path / "out"), batch_size=4))

    assert worker(True).batch_size == 4
    alone = worker(False)
    assert alone.batch_size == 1
    assert any("in a batch of its own" in note for note in alone.notes)
    monkeypatch.setattr("camcli.engine.checks.trial._relative_change", lambda *given: 0.0)
    together = worker(False)
    assert together.batch_size == 4
    assert together.fingerprint != alone.fingerprint


def test_pictures_of_a_network_that_is_nothing_without_its_batch_fail_with_a_reason():
    model = nn.Sequential(Small(), Through(lambda scores: scores - scores.mean(0)))
    explain = Explainer(model, layers=["0.conv2"])
    for [result] in explain.results(pictures(2, 16)):
        assert isinstance(result, PictureError)
        assert "is zero everywhere" in result.message
    assert "--group" in explain.notes[0]


class Single(Small):
    """Written for one image."""

    def forward(self, x):
        return super().forward(x.view(1, 3, *x.shape[2:]))


def test_a_network_that_takes_one_image_at_a_time_is_given_one_at_a_time():
    explain = Explainer(Single(), layers=["conv2"])
    explain.check(pictures(1, 16))
    assert explain.one_by_one
    assert any(
        note.startswith("the model fails on two images at once (shape '[1, 3, 16, 16]'") for note in explain.notes
    )


class Finding(nn.Module):
    """Two boxes, one for each half, whose scores are what a head makes of the half's brightness."""

    def __init__(self, head, before=None) -> None:
        super().__init__()
        self.layer, self.before, self.head = (
            nn.Conv2d(3, 5, 3, padding=1).double(),
            before or nn.Identity(),
            Through(head),
        )

    def forward(self, x):
        h, w = x.shape[2:]
        boxes = torch.tensor([[0.0, 0, w / 2, h], [w / 2, 0, w, h]])
        halves = self.before(self.layer(x)).tensor_split(2, 3)
        scores = self.head(torch.stack([half.square().mean((1, 2, 3)) for half in halves], 1))
        return [{"boxes": boxes, "labels": torch.tensor([0, 1]), "scores": some} for some in scores]


def detecting(head, *before):
    return Explainer(
        Network(
            "mine",
            Finding(head, *before),
            Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3, (16, 16), "longer", "nearest"),
            Labels(("left", "right")),
            "pretrained",
            "my own",
            output_spec=OutputSpec("detect"),
        ),
        layers=["layer"],
        method="hirescam",
    )


def test_a_detector_that_draws_is_told_of():
    torch.manual_seed(0)
    explain = detecting(torch.sigmoid, Through(lambda x: F.dropout(x, 0.5)))
    explain.check(pictures(1, 16))
    [note] = [note for note in explain.notes if "is not deterministic" in note]
    assert "on noise its boxes and their scores change between runs by " in note
    assert "(dropout is called with training=True in 'before' (Through))" in note


def test_a_detector_that_draws_nothing_has_nothing_told():
    explain = detecting(torch.sigmoid)
    explain.check(pictures(1, 16))
    assert not any("deterministic" in note for note in explain.notes)


@pytest.mark.parametrize(("head", "squashed"), [(torch.sigmoid, True), (lambda x: 5 + x, False)])
def test_a_boxs_score_is_a_probability_where_it_can_be_one_and_is_never_squashed(head, squashed):
    explain, image = detecting(head), pictures(1, 16)
    found = explain(image)[0]
    with torch.no_grad():
        [own] = explain.module(image)
    assert sorted(one.score for one in found) == pytest.approx(sorted(own["scores"].tolist()))
    assert [one.probability for one in found] == [one.score if squashed else None for one in found]
    assert "logit" not in explain.describe_target()
