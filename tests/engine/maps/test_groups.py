"""Images that a network takes together: maps of one prediction for all, or of one for each, by hand."""

import pytest
import torch
import torch.nn.functional as F
from networks import Small, pictures, seeded
from torch import Tensor, nn

from camcli import Explainer, PictureError, RequestError

COUNT = 3


class Grouped(nn.Module):
    """Small's features of each image, and a head that sees the images together."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Small()

    def features(self, images: Tensor) -> Tensor:
        net = self.network
        return net.conv2(net.pool(net.relu1(net.norm1(net.conv1(images)))))

    def tail(self, cells: Tensor) -> Tensor:
        """One row of scores an image, each by itself."""
        return self.network.fc(self.network.relu2(cells.clone()).square().mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.tail(self.features(images)))

    def head(self, rows: Tensor) -> Tensor:
        return rows


class One(Grouped):
    """One prediction for all, not linear in what each image says, nor alike in all of them."""

    def head(self, rows: Tensor) -> Tensor:
        weights = torch.linspace(1, 2, len(rows), dtype=rows.dtype)[:, None]
        return (rows * weights).square().sum(0, keepdim=True) + rows.prod(0, keepdim=True)


class Mixed(Grouped):
    """One prediction an image, which depends on the image before too."""

    def head(self, rows: Tensor) -> Tensor:
        return rows.square() + 0.5 * rows * rows.roll(1, 0)


def by_hand(model: Grouped, images: Tensor, score: int, row: int) -> tuple[Tensor, Tensor]:
    """The activation at conv2 and the gradient of one score by it, written out."""
    cells = model.features(images).detach().requires_grad_()
    scores = model.head(model.tail(cells))
    (gradient,) = torch.autograd.grad(scores[row, score], cells)
    return cells.detach(), gradient


def gradcams(cells: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.mean((2, 3), keepdim=True) * cells).sum(1)


def maps(explained: list) -> Tensor:
    return torch.stack([torch.from_numpy(one.map).double() for (one,) in explained])


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


LAYER = {"layers": ["network.conv2"], "group": True}


# ---- one prediction for the group


def test_the_maps_of_a_group_with_one_prediction_are_those_of_autograd_by_hand() -> None:
    model, images = One(), pictures(COUNT, 16)
    explained = Explainer(model, **LAYER)(images, 2)
    cells, gradient = by_hand(model, images, 2, 0)
    close(maps(explained), gradcams(cells, gradient))
    with torch.no_grad():
        score = float(model(images)[0, 2])
    assert [one.score for (one,) in explained] == pytest.approx([score] * COUNT)


@pytest.mark.parametrize(
    ("method", "formula"),
    [
        ("hirescam", lambda a, g: (a * g).sum(1)),
        ("layercam", lambda a, g: (a * g.relu()).sum(1).relu()),
    ],
)
def test_so_are_those_of_other_methods(method: str, formula) -> None:
    model, images = One(), pictures(COUNT, 16)
    close(maps(Explainer(model, method=method, **LAYER)(images, 1)), formula(*by_hand(model, images, 1, 0)))


def test_at_the_input_the_score_counts_once_too() -> None:
    model, images = One(), pictures(COUNT, 16)
    with torch.enable_grad():
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf)[0, 1], leaf)
    close(maps(Explainer(model, method="saliency", group=True)(images, 1)), gradient.abs().amax(1))


def test_a_mirrored_group_is_mirrored_as_a_whole() -> None:
    model, images = One(), pictures(COUNT, 16)
    both = maps(Explainer(model, flips=["flip"], **LAYER)(images, 2))
    turned = gradcams(*by_hand(model, images.flip(-1), 2, 0)).flip(-1)
    close(both, (gradcams(*by_hand(model, images, 2, 0)) + turned) / 2)


def test_the_comparison_of_finer_cam_counts_once() -> None:
    # Of twice the same image each has half a part in the mean.
    images = pictures(1, 16).expand(2, -1, -1, -1).contiguous()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = Small()

        def forward(self, images: Tensor) -> Tensor:
            return self.one(images).mean(0, keepdim=True)

    twice = Twice()
    alone = maps(Explainer(twice.one, layers=["conv2"], method="finer-cam")(images[:1], 1))
    together = maps(Explainer(twice, layers=["one.conv2"], method="finer-cam", group=True)(images, 1))
    close(together, torch.cat([alone, alone]) / 2)


def test_fullgrad_of_a_group_is_complete_over_all_its_pictures() -> None:
    class Plain(nn.Module):
        """Piecewise linear, so that input and biases are all of the score."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = seeded(nn.Conv2d(3, 4, 3, padding=1))
            self.fc = seeded(nn.Linear(4, 3))

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(F.relu(self.conv(images)).mean((2, 3))).sum(0, keepdim=True)

    found = Explainer(Plain(), method="fullgrad", group=True)(pictures(COUNT, 16), 1)
    assert len(found) == COUNT


def test_targets_of_one_prediction_are_one_or_agree() -> None:
    model, images = One(), pictures(COUNT, 16)
    explain = Explainer(model, **LAYER)
    wanted = maps(explain(images, 2))
    close(maps(explain(images, [2])), wanted)
    close(maps(explain(images, [2, 2, 2])), wanted)
    with pytest.raises(PictureError, match="one prediction for the group, and its images have different targets: 2"):
        explain(images, [2, 2, 1])
    for targets in ([2, 2], [2] * 4):
        with pytest.raises(RequestError, match=f"{len(targets)} targets were given for 3 images"):
            explain(images, targets)
    assert [one.index for (one,) in explain(images)] == [int(model(images)[0].argmax())] * COUNT


def test_groups_of_several_sizes_may_follow_one_another() -> None:
    model = One()
    explain = Explainer(model, **LAYER)
    for count in (2, 5, 1, 2):
        images = pictures(count, 16, seed=count)
        close(maps(explain(images, 0)), gradcams(*by_hand(model, images, 0, 0)))


# ---- one prediction an image


def test_pictures_that_do_not_mix_are_as_if_alone() -> None:
    model, images = Grouped(), pictures(9, 16)
    together = Explainer(model, **LAYER)
    close(
        maps(together(images, [0, 1, 2] * 3)), maps(Explainer(model, layers=["network.conv2"])(images, [0, 1, 2] * 3))
    )
    assert not any("depends on others" in note for note in together.notes)


@pytest.mark.parametrize("count", [2, 3, 9, 16])
def test_of_scores_that_depend_on_several_pictures_each_is_explained_by_itself(count: int) -> None:
    model, images = Mixed(), pictures(count, 16)
    targets = [row % 4 for row in range(count)]
    explain = Explainer(model, **LAYER)
    by_row = [gradcams(*by_hand(model, images, targets[row], row))[row] for row in range(count)]
    close(maps(explain(images, targets)), torch.stack(by_row))
    # The gradient of the sum is another: it holds what an image does for the next one's score.
    cells = model.features(images).detach().requires_grad_()
    total = model.head(model.tail(cells))[range(count), targets].sum()
    (mixed,) = torch.autograd.grad(total, cells)
    assert not torch.allclose(torch.stack(by_row), gradcams(cells.detach(), mixed), rtol=1e-3)
    assert any("depends on others of its group" in note for note in explain.notes)


def test_one_weak_link_among_many_pictures_is_seen() -> None:
    class Weak(Grouped):
        def head(self, rows: Tensor) -> Tensor:
            return torch.cat([rows[:4], rows[4:5] + 1e-4 * rows[11:12], rows[5:]])

    model, images = Weak(), pictures(12, 16)
    explain = Explainer(model, **LAYER)
    by_row = [gradcams(*by_hand(model, images, 1, row))[row] for row in range(12)]
    close(maps(explain(images, 1)), torch.stack(by_row))
    assert any("depends on others" in note for note in explain.notes)


def test_targets_of_one_prediction_a_picture_must_be_as_many() -> None:
    explain = Explainer(Mixed(), **LAYER)
    for targets in ([1], [1, 2], [0, 1, 2, 3]):
        with pytest.raises(RequestError, match=f"{len(targets)} targets were given for 3 images"):
            explain(pictures(COUNT, 16), targets)


# ---- what a layer gives


class Film(nn.Module):
    """The images of a group are the frames of one film (1, 3, t, h, w)."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 5, 3, padding=1, stride=(stride, 1, 1))
        self.fc = nn.Linear(5, 4)
        seeded(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images.transpose(0, 1)[None]).relu().square().mean((2, 3, 4)))


def test_the_frames_of_a_film_are_the_pictures_of_its_group() -> None:
    model, images = Film(), pictures(4, 12)
    explain = Explainer(model, layers=["conv"], group=True)
    cells = model.conv(images.transpose(0, 1)[None]).detach().requires_grad_()
    score = model.fc(cells.relu().square().mean((2, 3, 4)))[0, 2]
    (gradient,) = torch.autograd.grad(score, cells)
    frames = [one[0].transpose(0, 1) for one in (cells.detach(), gradient)]
    close(maps(explain(images, 2)), gradcams(*frames))
    assert any("the images of a group are mixed before the layer 'conv'" in note for note in explain.notes)


class Cut(Grouped):
    """Every image is cut into two, one above the other."""

    def features(self, images: Tensor) -> Tensor:
        return super().features(torch.cat(images.chunk(2, 2)))

    def head(self, rows: Tensor) -> Tensor:
        return rows.mean(0, keepdim=True)


class Shuffled(Grouped):
    def features(self, images: Tensor) -> Tensor:
        return super().features(images.reshape(2, 2, *images.shape[1:]).transpose(0, 1).flatten(0, 1))

    def head(self, rows: Tensor) -> Tensor:
        return rows.mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Cut(), {}, r"'network.conv2': its output has 8 rows \(8x6x4x8\) for a group of 4 images"),
        (Film(2), {"layers": ["conv"]}, r"'conv': its output has 2 frames \(1x5x2x16x16\) for a group of 4 images"),
        (Shuffled(), {}, "another order at the layer 'network.conv2': row 2 of 4 is of image 3"),
        (One(), {"method": "scorecam"}, "scorecam scores many changed images"),
        (One(), {"method": "smoothgrad", "layers": []}, "smoothgrad scores many changed images"),
    ],
)
def test_what_cannot_be_said_of_each_picture_is_refused(model, options, message) -> None:
    with pytest.raises(RequestError, match=message):
        Explainer(model, **(LAYER | options))(pictures(4, 16), 0)


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda rows: rows[:2], "returns 2x4 for a group of 4 images, neither one row of class scores for the group"),
        (lambda rows: rows.sum(), "returns one number|returns  for a group"),
        (lambda rows: {"a": rows, "b": rows[:1] * 2}, "returns 2 tensors that could be its scores"),
    ],
)
def test_what_is_no_answer_for_a_group_is_refused(gives, message) -> None:
    class Wrong(Grouped):
        def head(self, rows: Tensor):
            return gives(rows)

    with pytest.raises(RequestError, match=message):
        Explainer(Wrong(), **LAYER)(pictures(4, 16), 0)
