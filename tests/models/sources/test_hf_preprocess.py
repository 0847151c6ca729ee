"""Preprocessing read from transformers' image processors: equal to the bit on images of other sizes, or refused."""

import numpy as np
import pytest
import torch
from PIL import Image

transformers = pytest.importorskip("transformers", reason="transformers is an extra (hf)")

from camcli.base.errors import RequestError  # noqa: E402
from camcli.models.sources.hf_preprocess import read_processor  # noqa: E402

SMALL = {"height": 64, "width": 64}
EDGE = {"shortest_edge": 64}
# Each processor with settings of its own that make small images, and how many values may differ by rounding.
PROCESSORS = {
    "ViT": ("ViTImageProcessor", {"size": SMALL}),
    "ViT of another shape": ("ViTImageProcessor", {"size": {"height": 48, "width": 80}, "resample": 3}),
    "ViT without a mean": ("ViTImageProcessor", {"size": SMALL, "do_normalize": False}),
    "ViT, nearest": ("ViTImageProcessor", {"size": SMALL, "resample": 0}),
    "ViT, Lanczos": ("ViTImageProcessor", {"size": SMALL, "resample": 1}),
    "BEiT": ("BeitImageProcessor", {"size": SMALL, "do_center_crop": True, "crop_size": {"height": 56, "width": 56}}),
    "BiT": ("BitImageProcessor", {"size": EDGE, "crop_size": SMALL}),
    "CLIP": ("CLIPImageProcessor", {"size": EDGE, "crop_size": {"height": 51, "width": 51}}),
    "CLIP, padded": ("CLIPImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": SMALL}),
    "ConvNeXt, small": ("ConvNextImageProcessor", {"size": EDGE}),
    "ConvNeXt, large": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "DeiT": ("DeiTImageProcessor", {"size": {"height": 73, "width": 73}, "crop_size": SMALL}),
    "DINOv3": ("DINOv3ViTImageProcessor", {"size": SMALL}),
    "EfficientNet": ("EfficientNetImageProcessor", {"size": SMALL, "include_top": False}),
    "LeViT": ("LevitImageProcessor", {"size": EDGE, "crop_size": SMALL}),
    "MobileNetV2": ("MobileNetV2ImageProcessor", {"size": EDGE, "crop_size": {"height": 56, "width": 56}}),
    "MobileViT": ("MobileViTImageProcessor", {"size": {"shortest_edge": 72}, "crop_size": SMALL}),
    "OWL-ViT": ("OwlViTImageProcessor", {"size": SMALL}),
    "RF-DETR": ("RfDetrImageProcessor", {"size": SMALL}),
    "PoolFormer": ("PoolFormerImageProcessor", {"size": EDGE, "crop_size": SMALL}),
    "SegFormer": ("SegformerImageProcessor", {"size": SMALL}),
    "SigLIP": ("SiglipImageProcessor", {"size": SMALL}),
}
# Images of odd sizes: wide, high, smaller than the input.
SIZES = ((317, 211), (95, 403), (37, 29))


def draw(width, height):
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("name", PROCESSORS)
def test_it_is_equal_to_the_bit(name):
    kind, settings = PROCESSORS[name]
    processor = getattr(transformers, kind)(**settings)
    preprocess, notes = read_processor(processor, "it")
    assert notes == ()
    for size in SIZES:
        image = draw(*size)
        ours, view = preprocess(image)
        assert torch.equal(ours, processor(images=image, return_tensors="pt")["pixel_values"][0])
        assert view.picture == image.size[::-1]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("EfficientNetImageProcessor", {"size": SMALL}),  # it divides by the deviation twice
        ("EfficientNetImageProcessor", {"size": SMALL, "rescale_offset": True, "rescale_factor": 1 / 127.5}),
        ("Owlv2ImageProcessor", {"size": SMALL}),  # it blurs all colours at once
        ("Owlv2ImageProcessor", {"size": SMALL, "do_pad": False}),
        ("ViTImageProcessorPil", {"size": SMALL, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}),
    ],
)
def test_it_is_equal_up_to_rounding_and_that_is_said(kind, settings):
    processor = getattr(transformers, kind)(**settings)
    preprocess, notes = read_processor(processor, "it")
    assert all("up to rounding" in note for note in notes)
    image = draw(211, 93)
    wanted = torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"][0])
    assert torch.allclose(preprocess(image)[0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("ViTImageProcessor", {"size": {"shortest_edge": 64}}, "its own shape"),
        ("ViTImageProcessor", {"size": {"max_height": 64, "max_width": 64}}, "its own shape"),
        ("PerceiverImageProcessor", {}, "its values differ"),
        ("TextNetImageProcessor", {}, "its own shape"),
        ("Siglip2ImageProcessor", {}, "spatial_shapes"),
        ("ImageGPTImageProcessor", {}, "it fails on an image"),
        ("VideoMAEImageProcessor", {}, "of an image, not 3xHxW"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_what_it_asks_for(kind, settings, reason):
    with pytest.raises(RequestError, match=f"{kind}: size .*{reason}") as raised:
        read_processor(getattr(transformers, kind)(**settings), "it")
    assert "camcli.Preprocess" in raised.value.hint


def test_values_of_more_than_eight_bits_are_resized_as_the_library_does():
    processor = transformers.ViTImageProcessor(size=SMALL, do_rescale=False)
    values = np.random.default_rng(3).random((93, 211, 3), np.float32)
    preprocess, _ = read_processor(transformers.ViTImageProcessor(size=SMALL), "it")
    wanted = processor(images=values, return_tensors="pt", input_data_format="channels_last")["pixel_values"][0]
    assert torch.allclose(preprocess.from_planes(values)[0], wanted, atol=1e-5)


def test_a_view_of_a_crop_whose_corner_is_rounded_down():
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 51, "width": 51})
    preprocess, _ = read_processor(processor, "it")
    _, view = preprocess(draw(64, 64))
    assert view.box == (6, 6, 57, 57)


def test_an_image_padded_to_a_square_has_its_place_in_the_upper_left_corner():
    preprocess, _ = read_processor(transformers.Owlv2ImageProcessor(size=SMALL), "it")
    assert preprocess.fit == "padded"
    _, view = preprocess(draw(317, 211))
    assert (view.box, view.picture) == ((0, 0, 317, 317), (211, 317))
    assert preprocess.view(95, 403).box == (0, 0, 403, 403)


def test_an_image_decoded_at_half_its_size_is_padded_alike():
    preprocess, _ = read_processor(transformers.Owlv2ImageProcessor(size=SMALL), "it")
    smooth = draw(5, 7).resize((1200, 800), Image.Resampling.BICUBIC)
    half = smooth.reduce(2)
    values, view = preprocess.from_reduced(half, smooth.size, (0.0, 0.0, 600.0, 400.0))
    wanted, seen = preprocess(smooth)
    assert view == seen
    inside = (slice(None), slice(1, 41), slice(1, -1))  # its edge is blurred into the padding
    assert torch.allclose(values[inside], wanted[inside], atol=0.1)
