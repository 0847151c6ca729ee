"""``camcli.explain`` of images and models in memory, and explanations that draw and save themselves."""

import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from shared import BLUE, RED, Paint

import camcli
from camcli.base.errors import PictureError, RequestError
from camcli.engine.network import Network
from camcli.models.sources import local


@pytest.fixture
def network(tiny: str) -> Network:
    return camcli.load(tiny)


@pytest.fixture
def pixels(paint: Paint) -> np.ndarray:
    """The pixels of a.png: red, and blue at the right."""
    return np.asarray(Image.open(paint("a.png", BLUE, box=(16, 0, 32, 32), ground=RED)))


def with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])


def test_every_kind_of_image_gives_the_same_map(network: Network, pixels: np.ndarray, here):
    (one,) = camcli.explain("a.png", model=network, target="blue")
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    kinds = [
        here / "a.png", Image.fromarray(pixels), pixels, pixels / 255.0, with_alpha(pixels), with_alpha(pixels) / 255,
        tensor, tensor / 255, (here / "a.png").read_bytes(), io.BytesIO((here / "a.png").read_bytes()),
    ]  # fmt: skip
    with (here / "a.png").open("rb") as file:
        found = list(camcli.explain([*kinds, file], model=network, target="blue"))
    batches = [*camcli.explain(np.stack([pixels, pixels]), model=network, target="blue")]
    batches += [*camcli.explain(torch.stack([tensor, tensor]), model=network, target=[2])]
    assert len(batches) == 4
    for other in [*found, *batches]:
        np.testing.assert_allclose(other.map, one.map, rtol=1e-5)
        np.testing.assert_array_equal(np.asarray(other.image), pixels)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (3, RequestError, "of type int is no image"),
        (io.StringIO("text"), RequestError, "opened as text"),
        (b"no image", PictureError, "image-0: "),
        (np.zeros((3, 20, 20), np.uint8), PictureError, "has its channels first"),
        (torch.zeros(20, 20, 3), PictureError, "has its channels last"),
        (torch.full((3, 8, 8), -2.0), PictureError, "floating-point values from -2"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(network: Network, image, error, message: str):
    with pytest.raises(error, match=message):
        list(camcli.explain((one for one in [image]), model=network))


def test_a_network_and_a_module_give_what_the_name_gives_and_stay_as_they_are(tiny: str, pixels: np.ndarray):
    (one,) = camcli.explain(pixels, model=tiny, layer="stem")
    network = camcli.load(tiny)
    module = network.module.train()
    before = {name: (value, value.clone(), value.requires_grad) for name, value in module.named_parameters()}
    from_network = camcli.explain(pixels, model=network, layers=module.stem)[0]
    from_module = camcli.explain(
        pixels, model=module, preprocess=network.preprocess, layer=module.stem, labels=["r", "g", "b"]
    )[0]
    for other in (from_network, from_module):
        np.testing.assert_array_equal(other.map, one.map)
        assert other.layer == "stem"
    assert from_module.label == "r"
    assert module.training
    for name, value in module.named_parameters():
        own, copied, requires_grad = before[name]
        assert value is own
        assert value.requires_grad == requires_grad
        assert torch.equal(value, copied)


def test_a_network_is_loaded_once(network: Network, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "load", lambda spec: pytest.fail("it was loaded again"))
    assert camcli.explain(pixels, model=network)[0].label == "red"


def test_target_is_for_all_images_and_targets_for_each(network: Network, pixels: np.ndarray):
    images = [pixels, pixels]

    def labels(**given) -> list[tuple[str, str]]:
        return [(one.source, one.label) for one in camcli.explain(images, model=network, **given)]

    both = [("image-0", "red"), ("image-0", "blue"), ("image-1", "red"), ("image-1", "blue")]
    for all_given in ([0, 2], ["red", np.int64(2)], np.array([0, 2]), torch.tensor([0, 2]), "top:2"):
        assert labels(target=all_given) == both
    assert labels(targets=2) == labels(target=2) == labels(target=np.int64(2)) == both[1::2]
    assert labels(targets=["blue", [0, 2]]) == both[1:]
    assert labels(targets=torch.tensor([2, 0])) == [both[1], both[2]]
    assert labels(targets=(one for one in [0, 0])) == [both[0], both[2]]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"targets": [0, 1]}, "targets= has 2 entries, and there is 1 image", "target= takes"),
        ({"targets": ["channel:1"]}, "is no class", "target="),
        ({"targets": "red"}, "no 'red'", "target='red'"),
        ({"target": 0, "targets": [0]}, "both target= and targets=", "leave one out"),
        ({"layer": "stem", "layers": "body"}, "both are given", "leave one out"),
        ({"layer": torch.nn.ReLU()}, "no part of the model (Tiny)", "a module inside it"),
        ({"out": "maps"}, "writes no files, so out= means nothing", "camcli.Run"),
        ({"save": "panel"}, "writes no files, so save= means nothing", "explanation.save"),
        ({"normalize": "run"}, "normalize cannot be 'run'", "image, range, none"),
        ({"colormap": "virids"}, "no colormap 'virids'", "'viridis'"),
        ({"text": "a cat"}, "prompts become classes while a model is loaded", "camcli.load("),
        ({"labels": ["a"]}, "labels= has 1 names", "one name for each class"),
    ],
)
def test_a_wrong_request_is_refused(network: Network, pixels: np.ndarray, options, message: str, hint: str):
    with pytest.raises(RequestError) as caught:
        list(camcli.explain(pixels, model=network, **options))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_explanations_are_had_by_number_or_streamed(network: Network, pixels: np.ndarray):
    found = camcli.explain([pixels, pixels[:, ::-1]], model=network, target=["red", "blue"])
    assert repr(found).startswith("Explanations(2 inputs; ")
    assert found[0].label == "red"
    assert found[-1].source == "image-1"
    assert len(found[1:3]) == 2
    assert [one.label for one in found] == [one.label for one in found] == ["red", "blue"] * 2
    assert found._repr_html_().count("<figure") == 4
    with pytest.raises(RequestError, match="a single explanation, and there are several"):
        found.overlay()
    assert len(found) == 4
    streamed = camcli.explain([pixels, pixels], model=network)
    assert streamed
    assert len(camcli.explain(pixels, model=network)) == 1
    assert next(streamed).source == "image-0"
    assert streamed._repr_html_() is None
    with pytest.raises(RequestError, match="iterated over"):
        streamed[0]
    with pytest.raises(TypeError, match="not known before"):
        len(streamed)
    assert [one.source for one in streamed] == ["image-1"]


def test_an_explanation_draws_plots_and_saves_itself(network: Network, pixels: np.ndarray, here):
    found = camcli.explain("a.png", model=network, layer="stem", target="blue", colormap="magma")
    assert found.overlay().size == found.heatmap().size == (32, 32)
    one = found[0]
    assert repr(one).startswith("ImageExplanation(a.png: 2 blue, gradcam at stem, map 16x16, score 4.9")
    assert isinstance(one, camcli.Explanation)
    assert one._repr_png_().startswith(b"\x89PNG")
    assert np.asarray(one.overlay(alpha=0)).tolist() == pixels.tolist()
    assert np.asarray(one.heatmap()).tolist() != np.asarray(one.heatmap(colormap="jet")).tolist()
    assert one.panel().width > 64
    for name, form in (("a.jpg", "JPEG"), ("b.PNG", "PNG"), ("a.heatmap.png", "PNG"), ("a.panel.png", "PNG")):
        with Image.open(found.save(name)) as image:
            assert image.format == form
    np.testing.assert_array_equal(np.load(one.save(here / "a.npy")), one.map)
    with pytest.raises(RequestError, match="does not say what to write"):
        one.save("a.xyz")
    with pytest.raises(RequestError, match="no colormap 'jett'"):
        one.overlay(colormap="jett")
    Image.new("RGB", (9, 9)).save("a.png")
    with pytest.raises(PictureError, match="another size"):
        one.overlay()
    (here / "a.png").unlink()
    with pytest.raises(PictureError, match=r"a\.png"):
        one.overlay()


def test_a_plot_has_a_title_or_says_what_is_missing(network: Network, pixels, monkeypatch: pytest.MonkeyPatch):
    one = camcli.explain(pixels, model=network)[0]
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
        with pytest.raises(RequestError, match="needs matplotlib"):
            one.plot()
    figures = pytest.importorskip("matplotlib.figure", reason="matplotlib is no dependency")
    axes = figures.Figure().subplots()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", figures)  # no window system is started
    assert one.plot(axes) is axes
    assert axes.get_title() == one.title
    assert one.title.startswith("0 red")


def test_what_is_explained_is_logged(network: Network, pixels: np.ndarray, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "camcli"):
        list(camcli.explain(pixels, model=network))
    assert network.name in caplog.messages[0]
    assert all(record.levelno == logging.INFO for record in caplog.records)
    caplog.clear()
    list(camcli.explain(pixels, model=network, weights="random", seed=1, on_error=lambda *_: None))
    assert "the weights are random" in " ".join(caplog.messages)


def test_the_explainer_has_the_same_names(network: Network):
    images = torch.rand(2, 3, 16, 16)
    explainer = camcli.Explainer(network, layer=network.module.stem, augment="flip")
    assert explainer.layers == ("stem",)
    for target in ("blue", 2, np.int64(2), ["blue"]):
        assert [[one.index for one in some] for some in explainer(images, target=target)] == [[2], [2]]
    assert [[one.index for one in some] for some in explainer(images, target=[0, "blue"])] == [[0, 2], [0, 2]]
    assert [[one.index for one in some] for some in explainer(images, targets=[0, 2])] == [[0], [2]]
    with pytest.raises(RequestError, match="both target= and targets="):
        explainer(images, targets=[0, 2], target=0)
    with pytest.raises(RequestError, match="a bare module has no names"):
        camcli.Explainer(network.module, layer="stem")(images, target="blue")


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ('layer = "stem"', "layers", ("stem",)),
        ('layers = ["stem", "body"]', "layers", ("stem", "body")),
        ('target = [281, "red"]', "target", ("281", "red")),
        ('method = ["gradcam", "layercam"]', "method", "gradcam,layercam"),
        ("scales = [0.5, 1]", "scales", "0.5,1"),
        ("size = [16, 32]", "size", "16x32"),
        ('option = "samples=3"', "options", ("samples=3",)),
        ("batch-size = 3", "batch_size", 3),
    ],
)
def test_one_name_and_one_value_or_several_in_a_job_file_and_in_python(here, text: str, field: str, value):
    import tomllib

    from camcli.runs.job import job_file
    from camcli.runs.job.job import Job
    from camcli.runs.job.values import convert_value

    (here / "job.toml").write_text(text)
    read = job_file.read(here / "job.toml", Job().as_dict() | {"layers": (), "target": (), "options": ()})
    assert getattr(Job(**read), field) == value
    ((name, given),) = tomllib.loads(text).items()
    assert getattr(Job(**{name: convert_value(field, given)}), field) == value
    with pytest.raises(RequestError, match="given twice"):
        Job(layer="a", layers="b")
