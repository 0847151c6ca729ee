"""Evidence by name: each piece by hand, and nothing got that nobody asked for."""

import pytest
import torch
import torch.nn.functional as F
from networks import ByHand, Pooled, Small, pictures, unruly, untouched
from torch import nn

from camcli import Explainer, PictureError, RequestError
from camcli.engine.signals.lookup import SIGNAL_FUNCTIONS
from camcli.methods import SIGNALS, MethodRow, works_at

RED, GREEN, BLUE = [[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]], [[7.0, 7.0], [7.0, 7.0]]
IMAGE = torch.tensor([[RED, GREEN, BLUE]])


def heard(bring, model, images, targets, *names, **options):
    """What a method that asks for these pieces is handed, by name."""
    got = {}

    def listen(*pieces):
        got.update(zip(names, pieces, strict=True))
        some = pieces[0]
        rows = len(some) if isinstance(some, torch.Tensor) else len(images)
        return torch.ones(rows, 2, 2)

    parameters = ", ".join(names)
    scope = {"listen": listen}
    exec(f"def method({parameters}): return listen({parameters})", scope)
    Explainer(model, method=bring(scope["method"], "listener"), **options)(images, targets)
    return got


class Cubic(nn.Module):
    """The layer hands red and green on; class 0 scores sum(W A^3), class 1 hardly ever wins."""

    W = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[2.0, -1.0], [0.0, 1.0]]])

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(2, 3)[:, :, None, None])
        self.eval()

    def forward(self, x):
        score = (self.W * self.layer(x) ** 3).sum((1, 2, 3))
        return torch.stack([score, score / 2 - 1000], 1)


def test_whatever_a_method_may_ask_for_is_made_of_the_network_but_what_it_was_fitted_to():
    # No method asks which rows the score reads: the house does.
    assert set(SIGNAL_FUNCTIONS) - {"read"} == set(SIGNALS) - {"basis"}


def test_act_and_grad_and_score_by_hand(bring):
    got = heard(bring, ByHand(), IMAGE, 0, "act", "grad", "score", "logits", "index", "images", layers=["layer"])
    assert got["act"][0, :2].tolist() == [RED, GREEN]
    assert got["grad"][0, :2].reshape(2, 4).tolist() == [[1, 0, 0, 1], [-1, -1, -1, 1]]
    assert got["score"].tolist() == [3]
    assert got["logits"].tolist() == [[3, -3, 0]]
    assert got["index"].tolist() == [0]
    assert torch.equal(got["images"], IMAGE)


def test_curve_by_hand(bring):
    # g = 3 W A^2 and H is diagonal, 6 W A; so H A = 6 W A^2.
    got = heard(bring, Cubic(), IMAGE, 0, "grad", "hvp", layers=["layer"], layout="nchw")
    act = IMAGE[:, :2]
    assert torch.equal(got["grad"], 3 * Cubic.W * act**2)
    assert torch.equal(got["hvp"], 6 * Cubic.W * act**2)


def test_curve_of_a_linear_head_is_zero(bring):
    got = heard(bring, ByHand(), IMAGE, 0, "hvp", "grad", layers=["layer"])
    assert not got["hvp"].any()
    assert got["grad"].any()


def test_grad_of_a_sum_of_scores_is_the_sum_of_gradients(bring):
    got = heard(bring, Small(), pictures(2, 16), [0, 3], "grad_of", "grad", layers=["conv2"])
    own = got["grad_of"](torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]]))
    assert torch.equal(own, got["grad"])
    twice = got["grad_of"](torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 2]]))
    torch.testing.assert_close(twice, 2 * own)


def test_input_grad_by_hand_and_without_a_layer(bring):
    model = Cubic()
    got = heard(bring, model, IMAGE, 0, "input_grad", "images")
    assert torch.equal(got["input_grad"][:, :2], 3 * Cubic.W * IMAGE[:, :2] ** 2)
    assert not got["input_grad"][:, 2].any()


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


def test_slopes_by_hand(bring):
    def sloping(images, score_and_grad):
        for factor, (score, slope) in zip((1, 2, 3), score_and_grad(images * k for k in (1, 2, 3)), strict=True):
            act = factor * images[:, :2]
            assert torch.equal(score, (Cubic.W * act**3).sum((1, 2, 3)))
            assert torch.equal(slope[:, :2], 3 * Cubic.W * act**2)
        return torch.ones(2, 2, 2)

    Explainer(Cubic(), method=bring(sloping), batch_size=4)(torch.cat([IMAGE, -IMAGE]), 0)


def test_responses_by_hand(bring):
    def responding(act_and_grad, images):
        for factor, (act, grad) in zip((1, 2, 3), act_and_grad(images * k for k in (1, 2, 3)), strict=True):
            assert torch.equal(act, factor * images[:, :2])
            assert torch.equal(grad, 3 * Cubic.W * act**2)
        return torch.ones(2, 2, 2)

    explain = Explainer(Cubic(), layers=["layer"], method=bring(responding), layout="nchw", batch_size=4)
    explain(torch.cat([IMAGE, -IMAGE]), 0)


def test_rest_by_hand(bring):
    def resting(act, score_from_layer):
        scores = torch.stack(list(score_from_layer(act * factor for factor in (1, 0, 2))))
        assert scores.tolist() == [[3, 3], [0, 0], [6, 6]]
        return torch.ones(2, 2, 2)

    Explainer(ByHand(), layers=["layer"], method=bring(resting))(torch.cat([IMAGE, -IMAGE]), [0, 1])


def test_biases_and_input_add_up_to_the_score(bring):
    # Conv, batch norm with statistics, pooling, ReLU6 (which has a bias above 6), and a linear head.
    class Affine(Small):
        def __init__(self):
            super().__init__()
            self.norm1.running_mean.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))

        def forward(self, x):
            x = self.pool(F.relu6(self.norm1(self.conv1(4 * x))))
            return self.fc(self.relu2(self.conv2(x)).mean((2, 3)))

    got = heard(bring, Affine(), pictures(2, 16), [1, 2], "images", "input_grad", "biases", "score")
    assert [tuple(one.shape[1:]) for one in got["biases"]] == [(5, 16, 16)] * 3 + [(6, 8, 8), (4,)]
    whole = (got["images"] * got["input_grad"]).flatten(1).sum(1)
    whole = whole + sum(one.flatten(1).sum(1) for one in got["biases"])
    torch.testing.assert_close(whole, got["score"], rtol=1e-9, atol=1e-9)
    # By hand: the head's bias has gradient 1 at its class alone.
    assert got["biases"][-1].tolist()[0] == [0, pytest.approx(Affine().fc.bias[1].item()), 0, 0]


@pytest.mark.parametrize("function", [F.gelu, F.silu, F.hardswish, torch.tanh, torch.sigmoid, F.softplus, F.elu])
def test_element_wise_activations_have_a_bias_of_their_own(bring, function):
    class Bent(Small):
        def forward(self, x):
            return self.fc(function(self.conv2(function(self.norm1(self.conv1(x))))).mean((2, 3)))

    got = heard(bring, Bent(), pictures(2, 16), [1, 2], "images", "input_grad", "biases", "score")
    whole = (got["images"] * got["input_grad"]).flatten(1).sum(1)
    whole = whole + sum(one.flatten(1).sum(1) for one in got["biases"])
    torch.testing.assert_close(whole, got["score"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("part", [nn.GroupNorm(1, 6), nn.LayerNorm([6, 8, 8]), "gate"])
def test_biases_of_what_multiplies_values_are_refused_with_the_share_that_is_missing(bring, part):
    class Multiplied(Small):
        def __init__(self):
            super().__init__()
            self.part = part if isinstance(part, nn.Module) else nn.Identity()
            self.double()

        def forward(self, x):
            x = self.conv2(self.pool(self.conv1(x)))
            x = x * x.mean((2, 3), keepdim=True).sigmoid() if part == "gate" else self.part(x)
            return self.fc(x.square().mean((2, 3)))

    model = Multiplied()
    with untouched(model), pytest.raises(RequestError, match=r"cannot be computed for this network: .* \d+% of it is"):
        heard(bring, model, pictures(1, 16), 0, "biases")


# ---- nothing more than is asked for


class Counted(Small):
    forwards = 0

    def forward(self, x):
        self.graph = x.requires_grad
        type(self).forwards += 1
        return super().forward(x)


@pytest.fixture
def counted(monkeypatch):
    """A network that counts its forwards, and the backwards: ``forwards, backwards`` since the last look."""
    backwards = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: backwards.append(1) or grad(*args, **kwargs))
    Counted.forwards = 0

    def since(work):
        Counted.forwards = 0
        backwards.clear()
        work()
        return Counted.forwards, len(backwards)

    return since


@pytest.mark.parametrize(
    ("method", "layers", "cost"),
    [
        ("gradcam", ["conv2"], (1, 1)),
        ("gradcam", ["conv2", "conv1"], (1, 1)),
        ("gradcam,hirescam", ["conv2", "conv1"], (1, 1)),
        (("gradcam", "hirescam"), ["conv2"], (1, 1)),
        ("guided-gradcam,gradcam,guided-backprop", ["conv2"], (1, 2)),
        ("guided-backprop", [], (1, 1)),
    ],
)
def test_methods_share_forward_and_backward(counted, method, layers, cost):
    explain = Explainer(Counted(), layers=layers, method=method)
    explain.check(pictures(1, 16))
    assert counted(lambda: explain(pictures(3, 16), 1)) == cost


def test_a_method_that_needs_only_the_activation_goes_back_nowhere(bring, counted):
    name = bring(lambda act: act.mean(1), "mean")
    explain = Explainer(Counted(), layers=["conv2"], method=name)
    explain.check(pictures(1, 16))
    assert counted(lambda: explain(pictures(3, 16), 1)) == (1, 0)


def test_a_method_that_needs_only_images_and_answers_needs_no_layer_and_no_graph(bring, counted):
    model = Counted()
    explain = Explainer(
        model, method=bring(lambda images, score_of: images[:, 0] * next(score_of([images]))[:, None, None], "m")
    )
    explain.check(pictures(1, 16))
    assert counted(lambda: explain(pictures(3, 16), 1)) == (2, 0)
    assert explain.layers == ()
    assert not model.graph
    with pytest.raises(RequestError, match="'m' works at the input"):
        Explainer(model, method="m", layers=["conv2"])


def test_the_graph_starts_at_the_layer_unless_the_input_is_asked_for(bring):
    model = Counted()
    Explainer(model, layers=["conv2"])(pictures(1, 16))
    assert not model.graph
    Explainer(model, method=bring(lambda input_grad: input_grad, "slope"))(pictures(1, 16))
    assert model.graph


def test_an_unknown_name_is_refused_with_what_there_is(bring):
    with pytest.raises(RequestError, match="'odd' asks for 'moon', and there is no such signal") as caught:
        Explainer(Small(), method=bring(lambda act, moon: act, "odd"))
    assert all(f"  {name}: " in caught.value.hint for name in SIGNALS)


def test_where_a_method_works_follows_from_its_signature():
    assert works_at(MethodRow("gradient", "gradcam")) == "layer"
    assert works_at(MethodRow("backprop", "guided-backprop")) == "input"
    assert works_at(MethodRow("product", "guided-gradcam")) == "layer and input"


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
        Explainer(network, method=bring(lambda images, score_of: images, "asker"))
    with pytest.raises(RequestError, match="finds other boxes in a changed image"):
        Explainer(network, scales=(0.5, 1))


def test_two_sizes_of_image_have_two_plans(bring):
    def rests(act, score_from_layer):
        return act.mean(1) + next(score_from_layer([act]))[:, None, None]

    explain = Explainer(Pooled(), layers=["last"], method=bring(rests))
    for size, grid in ((16, (8, 8)), ((16, 32), (8, 16)), (16, (8, 8))):
        assert explain(pictures(1, size))[0][0].map.shape == grid
