"""Scores of changed images: asked for in batches, and only about the images that have the class."""

import pytest
import torch
from networks import ByHand, Pooled, Small, pictures, unruly, untouched
from signals import IMAGE
from torch import nn

from camcli import Explainer, PictureError, RequestError


def test_ask_streams_variants_in_chunks_of_the_rows_given(bring):
    sizes, drawn = [], []

    class Counted(ByHand):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    def asking(images, score_of):
        def variants():
            for number in range(5):
                drawn.append(number)
                yield images * number

        answers = score_of(variants())
        assert drawn == []
        first = next(answers)
        assert drawn == [0, 1, 2]  # a chunk of 3 pairs, and no more
        scores = torch.stack([first, *answers])
        # The network is linear: 3 for the first image, -6 for class 1 of twice the image.
        assert scores.tolist() == [[3 * number, -6 * number] for number in range(5)]
        assert not scores.is_inference()
        return torch.ones(2, 2, 2)

    explain = Explainer(Counted(), method=bring(asking), batch_size=6)
    explain.check(IMAGE)
    sizes.clear()
    explain(torch.cat([IMAGE, 2 * IMAGE]), [0, 1])
    assert sizes == [2, 6, 4]


@pytest.mark.parametrize("views", [False, True])
def test_variants_are_asked_about_with_channels_last_unless_the_network_refuses(bring, views):
    lay = []

    class Looking(Pooled):
        def forward(self, x):
            lay.append(x.is_contiguous(memory_format=torch.channels_last))
            x = self.features(x)
            # Rows and columns as one dimension: channels that lie last cannot be seen so, together with them.
            x = x.view(len(x), -1).view(x.shape) if views else x
            return self.fc(self.last(x).mean((2, 3)))

    def asking(images, score_of):
        wanted = [images * number for number in range(4)]
        lay.clear()
        found = torch.stack(list(score_of(iter(wanted))))
        said.extend(lay)
        with torch.no_grad():
            scores = torch.stack([model(variant)[[0, 1], [2, 0]] for variant in wanted])
        assert (found - scores).abs().max() <= 1e-12
        return torch.ones(2, 2, 2)

    model, said = Looking(), []
    explain = Explainer(model, method=bring(asking), batch_size=4)
    explain(pictures(2), [2, 0])
    # Two chunks of two variants of two images each; that it is refused was found out on noise, before.
    assert said == [not views] * 2


# ---- classes and images that do not match up


@pytest.mark.parametrize(
    "names",
    [("act", "grad"), ("images", "input_grad"), ("act", "score"), ("index", "images"), ("act", "hvp"), ("logits",)],
)
def test_images_with_fewer_classes_do_not_disturb_the_others(bring, names):
    model, images = Small(), pictures(3, 16)
    targets = [[0, 1, 2], [3], [2, 1]]
    scope = {"torch": torch}
    body = " + ".join(f"{name}.double().reshape(len({name}), -1).sum(1)" for name in names)
    exec(f"def total({', '.join(names)}): return ({body}).reshape(-1, 1, 1).expand(-1, 2, 2) + 100", scope)
    explain = Explainer(model, method=bring(scope["total"], "total"), layers=["conv2"] if "act" in names else [])
    together = explain(images, targets)
    assert [[one.index for one in some] for some in together] == targets
    for row, some in enumerate(together):
        for one in some:
            [[alone]] = explain(images[row : row + 1], one.index)
            assert abs(one.map - alone.map).max() <= 1e-5


def test_questions_are_about_the_images_that_have_the_class(bring):
    def questions(act, images, score_of, score_and_grad, act_and_grad, score_from_layer):
        n = len(images)
        own = next(score_of([images]))
        for one in (next(score_from_layer([act])), next(score_and_grad([images]))[0]):
            torch.testing.assert_close(one, own)
        seen, grad = next(act_and_grad([images]))
        assert own.shape == (n,)
        torch.testing.assert_close(seen, act)
        return own[:, None, None] + grad.sum(1)

    model, images, targets = Small(), pictures(3, 16), [[0, 1, 2], [3], [2, 1]]
    explain = Explainer(model, layers=["conv2"], method=bring(questions))
    with untouched(model):
        together = explain(images, targets)
    for row, some in enumerate(together):
        for one in some:
            [[alone]] = explain(images[row : row + 1], one.index)
            assert abs(one.map - alone.map).max() <= 1e-6 * abs(alone.map).max()


def test_a_map_that_cannot_be_had_says_why_in_the_words_of_its_row(bring):
    name = bring(lambda act: act.mean(1) / 0, "none", caveat="it divides by nothing")
    with pytest.raises(PictureError, match="contains NaN or infinite values; it divides by nothing"):
        Explainer(Small(), layers=["conv2"], method=name)(pictures(1, 16))


@pytest.mark.parametrize("piece", ["score_of", "score_and_grad", "act_and_grad", "score_from_layer"])
def test_the_model_is_untouched_when_a_question_fails(bring, piece):
    model = unruly(Small())
    questioned = []

    def fails(module, inputs):
        if questioned:
            raise ZeroDivisionError("inside")

    model.relu2.register_forward_pre_hook(fails)
    scope = {"torch": torch, "questioned": questioned}
    what = "act" if piece == "score_from_layer" else "images"
    exec(f"def asks(act, images, {piece}):\n questioned.append(1)\n return list({piece}([{what}, {what}]))", scope)
    explain = Explainer(model, layers=["conv2"], method=bring(scope["asks"]))
    explain.check(pictures(1, 16))
    with untouched(model), pytest.raises(ZeroDivisionError, match="inside"):
        explain(pictures(2, 16), 1)


@pytest.mark.parametrize("region", [None, (0, 8)])
def test_of_a_segmentation_the_score_over_its_own_region_is_asked_for(bring, region):
    from networks import named

    from camcli import OutputSpec

    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1, bias=False)
            with torch.no_grad():
                self.layer.weight.copy_(torch.eye(3)[:, :, None, None])

        def forward(self, x):
            return self.layer(x)

    def asks(images, score_of, score, logits):
        half, flipped = score_of([images / 2, -images])
        # The pixels stay those of the image itself, though the other class is predicted in the opposite.
        torch.testing.assert_close(half, score / 2)
        torch.testing.assert_close(flipped, -score)
        torch.testing.assert_close(logits[:, 1], score)
        return images.sum(1)

    network = named(Dense().eval(), 3, 8, output_spec=OutputSpec("segment"))
    mask = None
    if region:
        mask = torch.zeros(2, 8, 8, dtype=torch.bool)
        mask[:, :, : region[1] // 2] = True
    Explainer(network, method=bring(asks))(pictures(2, 8, dtype=torch.float32), 1, mask)


def test_of_a_detector_nothing_is_asked_again(bring):
    from networks import named

    from camcli import OutputSpec

    network = named(Small(), 3, 16, output_spec=OutputSpec("detect"))
    with pytest.raises(RequestError, match="finds other boxes in a changed image"):
        Explainer(network, method=bring(lambda images, score_and_grad: images, "asker"))
    with pytest.raises(RequestError, match="finds other boxes in a changed image"):
        Explainer(network, scales=(0.5, 1))


def test_two_sizes_of_image_have_two_plans(bring):
    def rests(act, score_from_layer):
        return act.mean(1) + next(score_from_layer([act]))[:, None, None]

    explain = Explainer(Pooled(), layers=["last"], method=bring(rests))
    for size, grid in ((16, (8, 8)), ((16, 32), (8, 16)), (16, (8, 8))):
        assert explain(pictures(1, size))[0][0].map.shape == grid
