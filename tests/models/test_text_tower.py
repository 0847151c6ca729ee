"""A text tower of the user's own, beside models that read no texts."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import Result
from networks import untouched
from readback import facts, ledger
from torch import Tensor
from typer.testing import CliRunner

import camcli
from camcli import Explainer
from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.images.decode import decode
from camcli.models.load import load as load_model
from camcli.runs.job.job import Job
from conftest import ROOT

SAMPLES = ROOT / "sample_images"
COFFEE, CAT, BOTH = SAMPLES / "coffee.png", SAMPLES / "chelsea.png", SAMPLES / "cat-and-espresso.jpg"
BUNDLED = "bundled:efficientnet-lite0"
WIDE = 12  # features of a small model of one's own

TOWERS = '''
import numpy as np
import torch
from torch import nn

from neighbour import WIDE


def drawn(text, width=WIDE):
    """A vector of its own for each text, the same each time."""
    return torch.randn(width, generator=torch.Generator().manual_seed(sum(map(ord, text))))


def plain(texts):
    assert isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    if "" in texts:
        raise ValueError("says nothing")
    return torch.stack([drawn(text) for text in texts])


def scaled(texts):
    return {"embeddings": torch.stack([drawn(text) for text in texts]), "scale": 20}


def biased(texts):
    return scaled(texts) | {"scale": np.float32(20), "bias": torch.tensor([-3.0])}


MATRIX = torch.randn(WIDE, 8, generator=torch.Generator().manual_seed(7))


def small(texts):
    return torch.stack([drawn(text, 8) for text in texts]).requires_grad_()


def matrix(texts):
    return {"embeddings": small(texts), "projection": MATRIX, "scale": 5.0}


def array(texts):
    return {"embeddings": small(texts).detach().numpy(), "projection": MATRIX.numpy(), "scale": 5.0}


class Projection(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(MATRIX)

    def forward(self, features):
        return features @ self.weight


def module(texts):
    return {"embeddings": small(texts), "projection": Projection(), "scale": 5.0}


HELD = Projection().train()


def held(texts):
    return {"embeddings": small(texts), "projection": HELD, "scale": 5.0}


def raises(texts):
    return texts[99]


def nan(texts):
    return torch.full((len(texts), WIDE), float("nan"))


def zero(texts):
    return torch.zeros(len(texts), WIDE)


def few(texts):
    return plain(texts)[:1]


def flat(texts):
    return plain(texts).flatten()


def words(texts):
    return texts


def whole(texts):
    return torch.ones(len(texts), WIDE, dtype=torch.long)


def typo(texts):
    return {"embeddings": plain(texts), "temperature": 3}


def nothing(texts):
    return {"scale": 3}


def negative(texts):
    return {"embeddings": plain(texts), "scale": -1}


def scales(texts):
    return {"embeddings": plain(texts), "scale": torch.ones(2)}


def infinite(texts):
    return {"embeddings": plain(texts), "scale": 1, "bias": float("inf")}


def turned(texts):
    return {"embeddings": small(texts), "projection": MATRIX.T}


def broken(texts):
    return {"embeddings": small(texts), "projection": MATRIX * float("nan")}


def narrow(texts):
    return {"embeddings": small(texts), "projection": nn.Linear(13, 8)}


def other(texts):
    return {"embeddings": small(texts), "projection": nn.Linear(WIDE, 9)}


def tuples(texts):
    class Pair(nn.Module):
        def forward(self, features):
            return features, features

    return {"embeddings": small(texts), "projection": Pair()}
'''


OWN = f"""
import torch
from torch import nn

import camcli


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, {WIDE}, 3)

    def forward(self, images):
        return self.last(self.stem(images).relu()).mean((2, 3))


def make():
    torch.manual_seed(0)
    prepare = camcli.Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, (32, 32))
    labels = camcli.Labels.numbered({WIDE}, "channel")
    facts = dict(weights="pretrained", origin="drawn", activation="none", headless=True)
    return camcli.Network("own", Small(), prepare, labels, **facts)
"""


@pytest.fixture
def tower(here: Path) -> str:
    (here / "neighbour.py").write_text(f"WIDE = {WIDE}\n")
    (here / "own.py").write_text(OWN)
    (here / "tower.py").write_text(TOWERS)
    return str(here / "tower.py")


def drawn(text: str, width: int = WIDE) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(sum(map(ord, text))))


def shown(network: camcli.Network, picture: Path) -> Tensor:
    image, _ = network.preprocess(decode(picture, "#ffffff"))
    return image[None]


def load(tower: str, function: str, **options: Any) -> camcli.Network:
    return load_model("own.py:make", **{"text": ("a cup", "a cat"), "text_tower": f"{tower}:{function}", **options})


def cosines(vectors: Tensor, projection: Tensor | None = None) -> Tensor:
    """Of the cup's image with these vectors, worked out of the model without its head."""
    headless = load_model("own.py:make", head="none")
    with torch.no_grad():
        features = headless.module(shown(headless, COFFEE))
    return F.cosine_similarity(features if projection is None else features @ projection, vectors)


def answers(network: camcli.Network) -> Tensor:
    with torch.no_grad():
        return network.module(shown(network, COFFEE))[0]


def test_scores_are_cosines_between_features_and_texts(tower: str) -> None:
    wanted = cosines(torch.stack([drawn("a cup"), drawn("a cat")]))
    plain = load(tower, "plain")
    torch.testing.assert_close(answers(plain), wanted, atol=1e-5, rtol=1e-4)
    assert plain.cosine == (1.0, 0.0)
    assert "returns no scale" in plain.notes[-1]
    assert plain.module.blank is None  # it says nothing of an empty text
    scaled = load(tower, "scaled")
    torch.testing.assert_close(answers(scaled), 20 * wanted, atol=1e-4, rtol=1e-4)
    assert (scaled.cosine, scaled.activation, scaled.notes) == ((20.0, 0.0), "softmax", ())
    torch.testing.assert_close(scaled.module.blank, F.normalize(drawn(""), dim=0))
    biased = load(tower, "biased")
    torch.testing.assert_close(answers(biased), 20 * wanted - 3, atol=1e-4, rtol=1e-4)
    assert (biased.cosine, biased.activation) == ((20.0, -3.0), "sigmoid")
    assert biased.labels == camcli.Labels(("a cup", "a cat"), synonyms=False, noun="prompt", asked=2)


@pytest.mark.parametrize("function", ["matrix", "array", "module", "held"])
def test_features_are_projected_to_the_space_of_the_texts(tower: str, function: str) -> None:
    projection = torch.randn(WIDE, 8, generator=torch.Generator().manual_seed(7))
    wanted = cosines(torch.stack([drawn("a cup", 8), drawn("a cat", 8)]), projection)
    network = load(tower, function)
    torch.testing.assert_close(answers(network), 5 * wanted, atol=1e-5, rtol=1e-4)
    assert not network.module.prompts.requires_grad
    # A projection that is handed out again and again stays as it was.
    files = [one for name, one in list(sys.modules.items()) if name.startswith("camcli_local_")]
    for module in [one.HELD for one in files if hasattr(one, "HELD")]:
        assert module.training
        assert module.weight is not getattr(network.module.projection, "weight", None)


def test_templates_and_contrast_are_as_with_a_model_that_reads(tower: str) -> None:
    network = load(tower, "scaled", template=("a {}", "the {}"), contrast=("a wall",))
    mean = F.normalize(torch.stack([drawn(f"{one} a cup") for one in ("a", "the")]), dim=1).sum(0)
    torch.testing.assert_close(network.module.prompts[0], F.normalize(mean, dim=0))
    assert (network.labels.explainable_count, len(network.labels)) == (2, 3)


def test_layers_are_named_as_if_the_model_stood_alone(tower: str) -> None:
    network = load(tower, "scaled")
    image = shown(network, COFFEE)
    assert Explainer(load_model("own.py:make", head="none"), layers=["last"])(image, 0)
    maps = [Explainer(network, layers=layers)(image, 0)[0][0] for layers in (["last"], ["visual.last"], [])]
    assert {one.layer for one in maps} == {"visual.last"}
    for one in maps[1:]:
        np.testing.assert_array_equal(one.map, maps[0].map)


def test_a_text_that_stands_for_a_picture_is_as_like_as_the_picture(here: Path) -> None:
    """Where texts are embedded as the features of images, scores and maps are those of likeness to the images."""
    headless = load_model(BUNDLED, head="none")
    with torch.no_grad():
        known = {
            name: headless.module(shown(headless, picture))[0] for name, picture in (("cup", COFFEE), ("cat", CAT))
        }
    torch.save(known, here / "known.pt")
    (here / "tower.py").write_text(
        "import torch\nKNOWN = torch.load('known.pt')\n"
        "def embed(texts): return torch.stack([KNOWN[one] for one in texts])"
    )
    like = [f"similar:{COFFEE}", f"similar:{CAT}"]
    wanted = list(camcli.explain(BOTH, model=BUNDLED, target=like, layer="bn2"))
    found = list(camcli.explain(BOTH, model=BUNDLED, text=["cup", "cat"], text_tower="tower.py:embed", layer="bn2"))
    for one, other in zip(found, wanted, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-4)
        np.testing.assert_allclose(one.map, other.map, rtol=1e-3, atol=1e-5 * np.abs(other.map).max())
    cup, cat = ([*one.view.peak(np.maximum(one.map, 0))] for one in found)
    assert cup[0] > decode(BOTH, "#ffffff").width / 2 > cat[0]


def test_the_network_is_left_as_it_is(tower: str) -> None:
    network = load(tower, "module")
    with untouched(network.module):
        Explainer(network)(shown(network, COFFEE), 1)


@pytest.mark.parametrize("model", ["test_resnet", "timm:test_vit", "torchvision:squeezenet1_1", "mine.py:make"])
def test_any_model_that_can_be_had_without_its_head(here: Path, model: str) -> None:
    (here / "mine.py").write_text(
        "import timm\ndef make(): return timm.create_model('test_resnet', num_classes=3, pretrained=False)"
    )
    width = len(load_model(model, weights="random", head="none").labels)
    (here / "tower.py").write_text(f"import torch\ndef embed(texts): return torch.randn(len(texts), {width})")
    network = load_model(model, weights="random", text=("a", "b"), text_tower="tower.py:embed")
    [[one]] = Explainer(network)(torch.randn(1, 3, *network.preprocess.size), 1)
    assert one.layer.startswith("visual.")
    assert one.label == "b"
    assert network.untrained


@pytest.mark.parametrize(
    ("function", "message", "hint"),
    [
        ("raises", "raises failed: IndexError", "texts[99]"),
        ("nowhere", "has no function 'nowhere'", "there are: "),
        ("nan", "embedding of the prompt 'a cup' contains NaN or infinite values", ""),
        ("zero", "embedding of the prompt 'a cup' is zero", ""),
        ("few", "embeddings of shape 1x12 for 2 texts", r"(2, d)"),
        ("flat", "embeddings of shape 24 for 2 texts", r"(2, d)"),
        ("words", "a list for the embeddings", "a list of texts"),
        ("whole", "a int64 Tensor of shape 2x12 for the embeddings", ""),
        ("typo", "a mapping with temperature", "'scale' and 'bias'"),
        ("nothing", "a mapping without 'embeddings'", ""),
        ("negative", "a scale of -1", "above zero"),
        ("scales", "a float32 Tensor of shape 2 for the scale", "one finite number"),
        ("infinite", "inf for the bias", "one finite number"),
        ("small", "without its head has 12 features for an image, and .*:small returns 8 for a text", "(12, 8)"),
        ("turned", "a float32 Tensor of shape 8x12 for the projection, and the model has 12", "(12, d)"),
        ("broken", "the projection of .*:broken contains NaN", ""),
        ("narrow", "the projection of .*:narrow fails on features of shape 1x12", "pooled features"),
        ("other", "the projection of .*:other returns 9 features for an image, and .* returns 8", "let it return 8"),
        ("tuples", "the projection of .*:tuples returns a tuple", "(n, features) to (n, d)"),
    ],
)
def test_every_misuse_is_said_with_a_way_out(tower: str, function: str, message: str, hint: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        load(tower, function)
    assert hint in caught.value.hint


def do(*words: Any) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, words), "--root", str(SAMPLES), "--out", "out"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--text-tower", "tower.py:plain"), "tower.py:plain has nothing to embed"),
        (("--text", "a", "--text-tower", "nowhere.py:f"), "there is no file 'nowhere.py'"),
        (("--text", "a", "--text-tower", "tower.py"), "text_tower cannot be 'tower.py'"),
        (("--text", "a", "--text-tower", "tower.py:plain", "--head", "keep"), "--head keep keeps the classifier"),
        (("--text", "a", "--text-tower", "tower.py:plain", "-t", "channel:1"), "'channel:1' is a feature"),
        (("--text", "a", "--text-tower", "tower.py:small"), "12 features for an image"),
        (("--text", "a"), "prompts are for models with a text encoder"),
    ],
)
@pytest.mark.usefixtures("tower")
def test_what_cannot_be_asked_writes_nothing(words: tuple[str, ...], message: str) -> None:
    result = do(COFFEE, "-m", "own.py:make", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("out").exists()


@pytest.mark.usefixtures("tower")
def test_from_the_shell() -> None:
    words = (
        "--text",
        "a cup",
        "--text",
        "a cat",
        "--versus",
        "a wall",
        "--text-tower",
        "tower.py:scaled",
        "-m",
        "own.py:make",
    )
    result = do(COFFEE, *words)
    assert result.exit_code == 0, result.stderr
    assert "prompts: 'a cup', 'a cat'; for contrast 'a wall', embedded by tower.py:scaled" in result.stderr
    sure = (20 * cosines(torch.stack([drawn(one) for one in ("a cup", "a cat", "a wall")]))).softmax(0)
    assert [one["score"] for one in ledger()] == pytest.approx(sure[:2].tolist(), rel=1e-3)
    assert facts()["prompts"]["contrast"] == ["a wall"]
    # Another tower in the same place is another job.
    Path("tower.py").write_text(TOWERS.replace('"scale": 20', '"scale": 30'))
    assert "another job" in do(COFFEE, *words).stderr


def test_a_wrapper_comes_around_it(tower: str, here: Path) -> None:
    (here / "wrapper.py").write_text(
        "from torch import nn\n"
        "class Wrapper(nn.Module):\n"
        "    def __init__(self, network):\n        super().__init__()\n        self.network = network\n"
        "    def forward(self, images):\n        return {'logits': 2 * self.network(images)}\n"
    )
    network = load(tower, "scaled", wrap="wrapper.py:Wrapper")
    assert network.cosine is None
    with torch.no_grad():
        found = network.module(shown(network, COFFEE))["logits"][0]
    torch.testing.assert_close(found, 2 * answers(load(tower, "scaled")), atol=1e-4, rtol=1e-4)
    [[one]] = Explainer(network, layers=["last"])(shown(network, COFFEE), 0)
    assert one.layer == "network.visual.last"


def test_a_tower_counts_by_its_code_and_function(tower: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(tower).parent))
    before = Job(text=("a",), text_tower="tower.py:plain").fingerprint
    assert Job(text=("a",), text_tower=f"{tower}:plain").fingerprint == before
    assert Job(text=("a",), text_tower="tower:plain").fingerprint == before
    assert Job(text=("a",), text_tower="tower.py:small").fingerprint != before
    Path(tower).write_text("")
    assert Job(text=("a",), text_tower="tower.py:plain").fingerprint != before
    with pytest.raises(RequestError, match="there is no module") as caught:
        _ = Job(text_tower="nowhere:plain").fingerprint
    assert "a text tower is named" in caught.value.hint
