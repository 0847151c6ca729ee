"""The names of ImageNet's classes, which timm carries along."""

import re

from camcli.targets.labels import Labels


def named(tag: str, classes: int) -> Labels | None:
    """ImageNet's names for a model with this tag and number of classes; None if that is not what it was trained on.

    The number alone would take any model with a thousand classes for an ImageNet model, so the tag must say so too
    (``a1_in1k``, ``augreg_in21k``): in timm's registry every such model's does.
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None or not re.search(r"in\d+k", tag):
        return None
    info = ImageNetInfo(subset)
    return Labels(tuple(info.label_descriptions()), tuple(info.label_names()))


def wordnet() -> tuple[str, ...]:
    """The WordNet ids of the thousand classes, in the usual order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
