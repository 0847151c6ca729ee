"""The class that the model predicts is told with every map, whichever class is explained."""

from dataclasses import replace

import torch
from networks import Small, pictures, seeded

from camcli import Explainer
from camcli.engine.maps.result import find_predicted


def test_every_map_tells_the_class_with_the_highest_score() -> None:
    network, images = seeded(Small()), pictures(3)
    with torch.no_grad():
        highest = network(images).argmax(1).tolist()
    found = Explainer(network, method="gradcam")(images, [[0, 1, 2, 3]] * 3)
    assert [[one.predicted for one in of_image] for of_image in found] == [[index] * 4 for index in highest]


def test_only_classes_that_compete_are_predicted_and_one_score_is_no_prediction() -> None:
    setup, scores = Explainer(seeded(Small()), method="gradcam").setup, torch.tensor([1.0, 4.0, 3.0, 4.0])
    assert find_predicted(setup, scores, ()) == 1
    assert find_predicted(setup, scores, (0, 2)) == 2
    assert find_predicted(setup, scores[:1], ()) is None
    assert find_predicted(setup, torch.tensor([1.0, torch.nan]), ()) is None
    setup.output_spec = replace(setup.output_spec, task="features")
    assert find_predicted(setup, scores, ()) is None
