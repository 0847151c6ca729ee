"""Words that say how images are prepared."""

import pytest

from camcli.base.errors import RequestError
from camcli.images.transform import Preprocess
from camcli.models.adapters.told import make_preprocess
from camcli.models.preprocess_words import parse_preprocess

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("words", "channels", "preprocess"),
    [
        ("imagenet", 3, Preprocess((8, 12), *IMAGENET)),
        ("-1..1", 1, Preprocess((8, 12), (0.5,), (0.5,))),
        ("0..255 bgr", 0, Preprocess((8, 12), (0.0,) * 3, (1 / 255,) * 3, bgr=True)),
        ("mean=0.1,0.2 std=1", 0, Preprocess((8, 12), (0.1, 0.2), (1.0, 1.0))),
        ("0..1 channels=4 fill=7", 0, Preprocess((8, 12), (0.0,) * 4, (1.0,) * 4, fill=7)),
        (
            "imagenet resize=10x14 fit=squash interpolation=bilinear",
            3,
            Preprocess((8, 12), *IMAGENET, (10, 14), "squash", "bilinear"),
        ),
        ("resize=20 0..1", 3, Preprocess((8, 12), (0.0,) * 3, (1.0,) * 3, (20, 20))),
    ],
)
def test_words_are_a_preprocessing(words, channels, preprocess):
    assert make_preprocess(words, "net", (8, 12), channels) == preprocess


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("imagenett", "cannot be 'imagenett'"),
        ("resize=256", "does not say mean and std"),
        ("mean=0.5", "does not say std"),
        ("imagenet mean=0", "says mean twice"),
        ("0..1 size=3", "has no 'size'"),
        ("0..1 resize=wide", "resize cannot be 'wide'"),
        ("0..1 resize=1x2x3", "resize cannot be"),
        ("0..1 resize=0", "resize cannot be"),
        ("mean=0 std=0", "std cannot be '0'"),
        ("0..1 fit=none", "fit cannot be 'none'"),
    ],
)
def test_other_words_are_refused(words, message):
    with pytest.raises(RequestError, match=message):
        parse_preprocess(words)


def test_typos_have_suggestions():
    with pytest.raises(RequestError) as caught:
        parse_preprocess("imagnet")
    assert "did you mean 'imagenet'?" in str(caught.value.hint)


def test_what_does_not_fit_the_model_is_refused():
    with pytest.raises(RequestError, match="gives 2 numbers as mean, and net takes 3 channels"):
        make_preprocess("mean=1,2 std=1,2,3", "net", (8, 8), 3)
    with pytest.raises(RequestError, match="how large the images are"):
        make_preprocess("0..1", "net", None)
    with pytest.raises(RequestError, match="nothing says how images are prepared for net"):
        make_preprocess("", "net", (8, 8))
