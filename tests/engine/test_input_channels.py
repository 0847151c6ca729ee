"""Networks of one channel, and of any: tried and not guessed; the right images, and errors that name channels."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import camcli
from camcli.base.errors import PictureError, RequestError
from camcli.engine import input_channels
from camcli.engine.explainer import Explainer
from camcli.engine.network import Network
from camcli.images.transform import Preprocess
from camcli.methods import METHODS
from camcli.models.load import load
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.targets.labels import Labels

CODE = '''
import torch
from torch import nn
import timm
from camcli import Preprocess


class Bright(nn.Module):
    """How bright an image is, and how dark: 10 times the mean of its values, and minus that."""

    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Conv2d(channels, channels, 1, bias=False)
        with torch.no_grad():
            self.stem.weight.copy_(torch.eye(channels).reshape(channels, channels, 1, 1))

    def forward(self, images):
        mean = 10 * self.stem(images).mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


def prepare(channels):
    return Preprocess(
        size=(16, 16), mean=(0.0,) * channels, std=(1.0,) * channels, resize=(16, 16), fit="squash",
        interpolation="nearest",
    )


def grey():
    return Bright(1), prepare(1), ["bright", "dark"]


def four():
    return Bright(4), prepare(4), ["bright", "dark"]


def four_features():
    from camcli import Labels, Network

    return Network(
        "four", Bright(4), prepare(4), Labels.numbered(2, "channel"), "file", "x", activation="none", headless=True
    )


def unlike():
    return Bright(1), prepare(3), ["bright", "dark"]


def likewise():
    return Bright(3), prepare(1), ["bright", "dark"]


def small():
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(7, 2)), prepare(1), ["bright", "dark"]


def of_timm():
    return timm.create_model("resnet18", in_chans=1, num_classes=2)


def told():
    overlay = {"mean": (0.5,), "std": (0.25,)}
    return timm.create_model("resnet18", in_chans=1, num_classes=2, pretrained_cfg_overlay=overlay)


def halves():
    return timm.create_model("vit_tiny_patch16_224", in_chans=1, num_classes=2)
'''
TWICE = """
from torch import nn


class Twice(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        assert images.shape[1] == 1
        return 2 * self.network(images)
"""
PURPLE = (200, 40, 90)
# Pillow's grey of it: 0.299, 0.587 and 0.114 of red, green and blue, in 65536ths.
LUMA = (200 * 19595 + 40 * 38470 + 90 * 7471 + 32768) >> 16


@pytest.fixture
def code(here):
    (here / "mine.py").write_text(CODE)
    return lambda name: f"mine.py:{name}"


def conv(channels):
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU()
    )
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()


# --- tried, not guessed -----------------------------------------------------------------------------------------------


class Patches(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.embed = nn.Linear(16 * channels, 5)

    def forward(self, images):
        cut = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)
        return self.embed(cut).mean((1, 2))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
@pytest.mark.parametrize(
    "build",
    [
        conv,
        Patches,
        lambda channels: nn.Sequential(nn.Flatten(), nn.Linear(channels * 256, 2)),
        lambda channels: nn.Sequential(nn.BatchNorm2d(channels), nn.Conv2d(channels, 2, 1)).eval(),
        lambda channels: nn.Conv2d(channels, channels, 3, groups=channels),
    ],
)
def test_what_a_network_takes_is_read_where_it_fails(build, channels):
    assert input_channels.find_input_channels(build(channels), (16, 16), 3) == channels


def test_what_fails_for_another_reason_says_nothing():
    assert (
        input_channels.find_input_channels(
            nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(7, 2)), (16, 16), 3
        )
        is None
    )
    assert (
        input_channels.find_input_channels(
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(7, 2)), (16, 16), 3
        )
        is None
    )


# --- grey images ----------------------------------------------------------------------------------------------------


def test_grey_is_pillows_before_anything_else():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    preprocess = Preprocess(size=(24, 24), mean=(0.4,), std=(0.2,), resize=(30, 30))
    values, view = preprocess(image)
    # timm's data sets convert by Pillow's "L" (input_img_mode), and then transform.
    transform = timm.data.create_transform(
        input_size=(1, 24, 24), mean=(0.4,), std=(0.2,), interpolation="bicubic", crop_pct=24 / 30
    )
    assert torch.equal(values, transform(image.convert("L")))
    assert values.shape == (1, 24, 24)
    assert view == Preprocess(size=(24, 24), mean=(0.0,) * 3, std=(1.0,) * 3, resize=(30, 30)).view(90, 60)
    assert preprocess.from_reduced(image, image.size, (0.0, 0.0, 90.0, 60.0))[0].shape == (1, 24, 24)


def test_padding_of_grey_is_its_mean():
    preprocess = Preprocess(size=(8, 8), mean=(0.4,), std=(0.2,), resize=(8, 8)).adapt(crop="none")
    values, _ = preprocess(Image.new("RGB", (80, 40), PURPLE))
    assert preprocess.fill == (102,)
    assert values[0, 0].abs().max() < 1e-6  # 102 of 255 is 0.4
    assert values[0, 4, 4] == pytest.approx((LUMA / 255 - 0.4) / 0.2)


def test_numbers_of_channels_go_together():
    with pytest.raises(ValueError, match=r"one number per channel, and have \[1, 3\]"):
        Preprocess(size=(8, 8), mean=(0.5,), std=(1.0, 1.0, 1.0), resize=(8, 8))


def test_a_grey_model_from_end_to_end(code, paint, pixels):
    paint("in/a.png", PURPLE)
    with Run(Job(model=code("grey"), inputs=("in",), out="out", device="cpu", save=("overlay-png", "array"))) as run:
        [[one]] = list(run)
    assert one.score == pytest.approx(10 * LUMA / 255, abs=1e-4)
    # Of 256 cells, each of d score / d stem = 10 / 256, at the activation LUMA / 255.
    assert np.load("out/" + one.files["array"]) == pytest.approx(10 / 256 * LUMA / 255)
    assert pixels("out/" + one.files["overlay-png"]).shape == (32, 32, 3)


@pytest.mark.parametrize(
    "method", ["saliency", "input-x-gradient", "smoothgrad", "integrated-gradients", "rise", "occlusion"]
)
def test_methods_at_the_input_of_a_grey_model(code, paint, method):
    paint("in/a.png", PURPLE, box=(0, 0, 16, 32))
    options = ("samples=8",) if method in ("rise", "smoothgrad") else ()
    job = {"inputs": ("in",), "out": "out", "device": "cpu", "save": ("panel", "array", "overlay", "heatmap")}
    with Run(Job(model=code("grey"), method=method, options=options, **job)) as run:
        [[one]] = list(run)
    assert one.error is None
    map = np.load("out/" + one.files["array"])
    assert map.shape[-2:] == (16, 16)
    assert map.shape in {(16, 16), (1, 16, 16)}
    if method == "input-x-gradient":  # the score's parts, pixel by pixel
        assert map.sum() == pytest.approx(one.score, rel=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_takes_any_number_of_channels(method, channels):
    row = METHODS.find(method)
    small = {"rise": {"samples": 4}, "occlusion": {"window": 8}, "ss-cam": {"samples": 2, "on": "image"}}
    network = conv(channels)
    try:
        explainer = Explainer(network, method=method, options=small.get(method, {}))
        explainer.check(torch.randn(1, channels, 24, 24))
    except RequestError as error:
        assert "channel" not in error.message or "a channel of the layer" in error.message, row
        pytest.skip(error.message)
    explained = explainer(torch.randn(2, channels, 24, 24), targets=0)
    assert all(np.isfinite(one.map).all() for some in explained for one in some)


# --- wrong channels are named -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "takes", "makes", "numbers"),
    [
        ("unlike", "1 channel", "3 channels", "mean=(0.5,)"),
        ("likewise", "3 channels", "1 channel", "mean=(0.5, 0.5, 0.5)"),
    ],
)
def test_a_prepare_of_other_channels(code, name, takes, makes, numbers):
    with pytest.raises(RequestError, match=f"takes images of {takes}, and its Preprocess makes {makes}") as caught:
        load(code(name))
    assert numbers in caught.value.hint
    assert "size" not in caught.value.hint


def test_another_trouble_is_not_called_one_of_channels(code):
    with pytest.raises(RequestError, match="mat1 and mat2") as caught:
        load(code("small"))
    assert "size" in caught.value.hint


def test_pictures_are_no_images_of_four_channels(code, paint):
    paint("in/a.png")
    with Run(Job(model=code("four"), inputs=("in",), out="out", device="cpu")) as run:
        [[one]] = list(run)
    assert "has 3 bands, and mine.py:four takes 4 channels" in one.error
    assert "TIFF and NPY" in one.error


def test_a_picture_to_compare_with_is_no_image_of_four_channels(code, paint):
    model = f"{code('four')}_features"
    paint("in/a.png")
    with pytest.raises(RequestError, match=r"has 3 bands, and .* takes 4 channels"):
        Run(Job(model=model, inputs=("in",), target=("similar:in/a.png",), out="out"))


def test_batches_of_other_channels():
    with pytest.raises(RequestError, match="the network takes images with 1 channel, and these have 3"):
        Explainer(conv(1))(torch.zeros(2, 3, 24, 24))
    network = Network(
        "mine", conv(1), Preprocess((24, 24), (0.5,), (0.5,), (24, 24)), Labels(("a", "b", "c")), "file", "x"
    )
    with pytest.raises(RequestError, match="images of shape 2x3x24x24 were given, and mine takes 1 channel"):
        Explainer(network)(torch.zeros(2, 3, 24, 24))


@pytest.mark.parametrize("channels", [1, 4])
def test_grad_cam_of_any_channels_is_that_by_hand(channels):
    network, images = conv(channels), torch.randn(3, channels, 24, 24)
    explained = Explainer(network, layers=["0"])(images, targets=1)
    act = network[0](images).detach().requires_grad_()
    [grad] = torch.autograd.grad(network[1:](act)[:, 1].sum(), act)
    expected = (grad.mean((2, 3), keepdim=True) * act).sum(1).detach()
    for row, [one] in enumerate(explained):
        torch.testing.assert_close(torch.from_numpy(one.map), expected[row], rtol=1e-5, atol=1e-7)


# --- timm -------------------------------------------------------------------------------------------------------------


def test_timm_with_one_channel(code, paint):
    preprocess = load(code("told")).preprocess
    assert (preprocess.channels, preprocess.mean, preprocess.std) == (1, (0.5,), (0.25,))
    # What is the same for every colour is so for grey.
    preprocess = load(code("halves")).preprocess
    assert (preprocess.mean, preprocess.std) == ((0.5,), (0.5,))
    with pytest.raises(RequestError, match=r"takes images of 1 channel.*mean and std of 3 \(0.485") as caught:
        load(code("of_timm"))
    assert "pretrained_cfg_overlay" in caught.value.hint
    paint("in/a.png", PURPLE)
    with Run(Job(model=code("told"), inputs=("in",), out="out", device="cpu", size="64")) as run:
        [[one]] = list(run)
    assert one.error is None


def test_a_model_whose_first_convolution_takes_folded_pictures():
    # 4 x 4 pixels of 3 channels are 48 to its convolution, and the images still have 3.
    assert load("timm:tresnet_m", weights="random").preprocess.channels == 3


@pytest.mark.usefixtures("here")
def test_weights_of_a_grey_model_for_a_model_of_colours():
    torch.save(timm.create_model("resnet10t", in_chans=1, num_classes=4).state_dict(), "grey.pth")
    with pytest.raises(RequestError, match=r"of a model whose images have 1 channel, and those of .* have 3") as caught:
        load("timm:resnet10t", weights="grey.pth")
    assert "in_chans=1" in caught.value.hint
    assert "architecture" not in caught.value.hint
    # As the hint has it.
    Path("my_model.py").write_text(
        "import timm, camcli\n\n\ndef make():\n    module = timm.create_model('resnet10t', in_chans=1, num_classes=4)\n"
        "    return module, camcli.Preprocess(size=(64, 64), resize=(64, 64), mean=(0.5,), std=(0.5,)), list('abcd')\n"
    )
    assert load("my_model.py:make", weights="grey.pth").preprocess.channels == 1


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_arrays_of_four_channels(code):
    values = np.zeros((32, 32, 4), np.float32)
    values[:16, :, 2] = 0.5
    values[..., 3] = 0.1
    [one] = camcli.explain(values, model=code("four"), layer="stem")
    # The mean of 0, 0, 0.25 and 0.1, times 10.
    assert one.score == pytest.approx(10 * 0.35 / 4, rel=1e-5)
    assert one.view.picture == (32, 32)
    assert one.map[0, 0] == pytest.approx(10 / 1024 * 0.6, rel=1e-5)
    assert one.map[-1, 0] == pytest.approx(10 / 1024 * 0.1, rel=1e-5)


def test_arrays_are_levelled_like_pictures(code):
    grey = np.full((32, 32), 1024, np.uint16)
    for given in (grey, grey[..., None], Image.fromarray(grey)):
        [one] = camcli.explain(given, model=code("grey"), layer="stem", range=(0, 4095))
        assert one.score == pytest.approx(10 * 1024 / 4095, rel=1e-5)  # finer than 255 levels
    [one] = camcli.explain(np.full((8, 8, 4), 1024, np.uint16), model=code("four"), range=(0, 4095))
    assert one.score == pytest.approx(10 * 1024 / 4095, rel=1e-5)
    [one] = camcli.explain(np.full((8, 8, 4), 51, np.uint8), model=code("four"))
    assert one.score == pytest.approx(10 * 51 / 255, rel=1e-5)
    [one] = camcli.explain(np.full((8, 8, 3), PURPLE, np.uint8), model=code("grey"))
    assert one.score == pytest.approx(10 * LUMA / 255, abs=1e-4)


def test_several_arrays_and_arrays_that_do_not_fit(code):
    batch = np.stack([np.full((8, 8, 4), value, np.float32) for value in (0.2, 0.4)])
    assert [one.score for one in camcli.explain(batch, model=code("four"))] == pytest.approx([2, 4], rel=1e-5)
    with pytest.raises(PictureError, match=r"has 5 bands, and mine\.py:four takes 4 channels"):
        list(camcli.explain(np.zeros((8, 8, 5), np.float32), model=code("four")))
    with pytest.raises(PictureError, match=r"has 3 bands, and mine\.py:four takes 4 channels"):
        list(camcli.explain(np.zeros((8, 8, 3), np.uint8), model=code("four")))
    with pytest.raises(PictureError, match="is not an image"):
        list(camcli.explain(np.zeros(8, np.uint8), model=code("grey")))
    with pytest.raises(PictureError, match="values from 0 to 7"):
        list(camcli.explain(np.full((8, 8, 4), [0, 1, 2, 7], np.float32), model=code("four")))


def test_layers_of_a_grey_model_are_listed(code):
    from camcli.runs.layers import list_layers

    rows, trouble = list_layers(code("grey"))
    assert trouble is None
    assert [row[0] for row in rows] == ["stem"]


@pytest.mark.usefixtures("here")
def test_a_wrapper_is_tried_on_as_many_channels(code, paint):
    Path("wrap.py").write_text(TWICE)
    paint("in/a.png", PURPLE)
    with Run(Job(model=code("grey"), wrap="wrap.py:Twice", inputs=("in",), out="out", device="cpu")) as run:
        [[one]] = list(run)
    assert one.score == pytest.approx(20 * LUMA / 255, abs=1e-4)
