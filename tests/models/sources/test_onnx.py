"""ONNX files as networks: the same maps as the network that they were exported from."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason="it runs the files")
onnx = pytest.importorskip("onnx", reason="it writes and cuts the files")

from commands import do  # noqa: E402
from onnx_files import CLASSES, SIDE, Residual, make_model, wrap  # noqa: E402
from PIL import Image  # noqa: E402

import camcli  # noqa: E402
from camcli.models.sources import onnx_module  # noqa: E402
from camcli.runs.job.job import Job  # noqa: E402

WORDS = "mean=0.5 std=0.25"
# Methods that take no gradient, one of each kind, and their options.
METHODS = {
    "recipro-cam": {},
    "eigencam": {},
    "ablation-cam": {},
    "activation": {},
    "occlusion": {"window": 4, "stride": 4},
}


@pytest.fixture
def net():
    return Residual().eval()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(model):
    onnx.save(model, "net.onnx")
    return camcli.load("net.onnx", preprocess=WORDS)


def noise(count=2):
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def explain(network, method, layer):
    layers = () if method == "occlusion" else (layer,)
    return camcli.Explainer(network, layers=layers, method=method, options=METHODS[method])(noise(), 2)


FORMS = {"any batch": {}, "one image": {"batch": 1}, "three images": {"batch": 3}, "channels last": {"last": True}}
FORMS["shape of the image"] = {"reshaped": True}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_those_of_the_network(folder, net, form, method):
    network = save(make_model(net, **FORMS[form]))
    module = dataclasses.replace(network, module=net, without_gradient="")
    for layer, own in (("act1/Relu", "act1"), ("act2/Relu", "act2")):
        for [one], [other] in zip(explain(network, method, layer), explain(module, method, own), strict=True):
            np.testing.assert_allclose(one.map, other.map, rtol=1e-4, atol=1e-5)
            assert one.score == pytest.approx(other.score, rel=1e-5)


def test_layers_are_what_all_behind_them_is_computed_from(folder, net):
    network = save(make_model(net))
    assert [name for name, _ in network.module.named_children()] == ["act1/Relu", "act2/Relu", "scores"]
    assert camcli.Explainer(network)(noise(1), 0)[0][0].layer == "act2/Relu"


def test_a_quantised_graph_is_cut_without_changing_a_bit(folder, net, monkeypatch):
    """As the graph says it; what ONNX Runtime fuses may round otherwise."""
    import onnxruntime

    def open_session(model):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(model, options)

    monkeypatch.setattr(onnx_module, "open_session", open_session)
    network = save(make_model(net, quantized=True))
    assert [name for name, _ in network.module.named_children()] == ["act1/Relu", "act2/Relu", "scores"]
    session = open_session("net.onnx")
    whole = session.run(None, {"images": noise(4).numpy()})[0]
    np.testing.assert_array_equal(network.module(noise(4)).numpy(), whole)
    layer = network.module.get_submodule("act1/Relu")(noise(1))
    levels = (layer / 0.02).numpy()
    np.testing.assert_allclose(levels, levels.round(), atol=1e-4)
    [[one]] = camcli.Explainer(network)(noise(1), 0)
    assert one.map.max() == 1


def test_without_a_method_it_is_one_without_gradients_and_others_say_which(folder, net):
    network = save(make_model(net))
    assert [row.name for row in camcli.Explainer(network).methods] == ["recipro-cam"]
    for wrong in ({"method": "gradcam"}, {"method": "gae"}, {"backward": "libra"}, {"method": "guided-backprop"}):
        with pytest.raises(camcli.RequestError, match="ONNX Runtime computes outputs and no gradients") as caught:
            camcli.Explainer(network, **wrong)
        assert "recipro-cam, occlusion, rise, sobol" in str(caught.value.hint)
        assert "gradcam" not in str(caught.value.hint)


def test_classes_have_numbers_until_they_are_named(folder, net):
    save(make_model(net))
    names = [f"kind {one}" for one in range(CLASSES)]
    assert camcli.load("net.onnx", preprocess=WORDS, labels=names).labels.short(4) == "kind 4"
    assert len(camcli.load("onnx:net.onnx", preprocess=WORDS).labels) == CLASSES


def test_a_copy_runs_and_other_weights_are_another_network(folder, net):
    network = save(make_model(net))
    torch.testing.assert_close(copy.deepcopy(network.module)(noise()), net(noise()), rtol=1e-5, atol=1e-6)
    net.fc.bias.data += 1
    assert save(make_model(net)).sha256() != network.sha256()


def test_the_files_content_and_the_preprocessing_count_in_the_job(folder, net):
    save(make_model(net))
    first = Job(model="net.onnx", preprocess="0..1 resize=20").fingerprint
    assert Job(model="net.onnx", preprocess="resize=20  0..1").fingerprint == first
    assert Job(model="net.onnx", preprocess="0..255 resize=20").fingerprint != first
    net.fc.bias.data += 1
    save(make_model(net))
    assert Job(model="net.onnx", preprocess="0..1 resize=20").fingerprint != first


def test_scores_of_pixels_are_of_segmentation(folder):
    node = onnx.helper.make_node("Conv", ["images", "weight"], ["scores"])
    weight = np.random.default_rng(0).normal(size=(2, 3, 1, 1)).astype(np.float32)
    network = save(wrap([node], ["n", 3, 8, 8], ["n", 2, 8, 8], {"weight": weight}))
    assert network.output_spec.task == "segment"
    assert any("segmentation" in one for one in network.notes)


def test_a_graph_of_any_size_is_given_one(folder, net):
    node = onnx.helper.make_node("GlobalAveragePool", ["images"], ["pooled"])
    flat = onnx.helper.make_node("Flatten", ["pooled"], ["scores"])
    model = wrap([node, flat], ["n", 3, "h", "w"], ["n", 3])
    onnx.save(model, "net.onnx")
    with pytest.raises(camcli.RequestError, match="nothing says how large") as caught:
        camcli.load("net.onnx", preprocess=WORDS)
    assert "--size" in str(caught.value.hint)
    assert camcli.load("net.onnx", preprocess=WORDS, size="8x12").preprocess.size == (8, 12)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"preprocess": ""}, "nothing says how images are prepared"),
        ({"weights": "random"}, "no use for --weights random"),
        ({"head": "none"}, "no use for --head none"),
        ({"size": "32"}, "16x16 only"),
        ({"preprocess": "mean=0.5,0.5 std=1,1"}, "3 channels, and its preprocessing gives 2"),
        ({"preprocess": camcli.Preprocess((8, 8), (0.5,) * 3, (1.0,) * 3)}, "takes images of 16x16"),
    ],
)
def test_what_it_cannot_be_combined_with(folder, net, given, words):
    onnx.save(make_model(net), "net.onnx")
    with pytest.raises(camcli.RequestError, match=words):
        camcli.load("net.onnx", **{"preprocess": WORDS, **given})


def test_files_that_are_no_network_of_images(folder, net):
    with pytest.raises(camcli.RequestError, match="there is no file"):
        camcli.load("net.onnx", preprocess=WORDS)
    (folder / "net.onnx").write_bytes(b"not a graph")
    with pytest.raises(camcli.RequestError, match="cannot be read"):
        camcli.load("net.onnx", preprocess=WORDS)
    model = make_model(net)
    model.graph.input.append(onnx.helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, [1]))
    onnx.save(model, "net.onnx")
    with pytest.raises(camcli.RequestError, match=r"2 inputs \(images, scale\)"):
        camcli.load("net.onnx", preprocess=WORDS)
    tokens = wrap([onnx.helper.make_node("Relu", ["images"], ["scores"])], ["n", 7], ["n", 7])
    onnx.save(tokens, "net.onnx")
    with pytest.raises(camcli.RequestError, match=r"is of \?x7"):
        camcli.load("net.onnx", preprocess=WORDS)


def test_explain_takes_words_and_a_preprocessing(folder, net):
    save(make_model(net))
    image = np.full((SIDE, SIDE, 3), 200, np.uint8)
    exact = camcli.Preprocess((SIDE, SIDE), (0.5,) * 3, (0.25,) * 3)
    [one], [other] = (list(camcli.explain([image], model="net.onnx", preprocess=way)) for way in (WORDS, exact))
    np.testing.assert_array_equal(one.map, other.map)


def test_other_commands_take_it_too(folder, net):
    save(make_model(net))
    save(make_model(net, quantized=True))
    onnx.save(make_model(net), "float.onnx")
    Image.fromarray(np.full((SIDE, SIDE, 3), 200, np.uint8)).save("a.png")
    words = ("--preprocess", WORDS, "a.png", "--out", "out")
    assert do("compare", "-m", "net.onnx", "-m", "float.onnx", "--method", "recipro-cam", *words).exit_code == 0
    assert (
        do(
            "evaluate",
            "-m",
            "net.onnx",
            "--method",
            "eigencam",
            "--metrics",
            "deletion-mean",
            *words[:3],
            "--out",
            "measured",
        ).exit_code
        == 0
    )
