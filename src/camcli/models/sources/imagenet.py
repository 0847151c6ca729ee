"""Names of ImageNet's classes, as timm has them."""

import re

from camcli.targets.labels import Labels


def find_labels(tag: str, classes: int) -> Labels | None:
    """Return ImageNet's class names for a model with this tag and number of classes; None if it is no ImageNet model.

    By the number alone, any model with a thousand classes would count as one, so the tag must name ImageNet too
    (``a1_in1k``, ``augreg_in21k``), as it does for all such models in timm's registry.
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None or not re.search(r"in\d+k", tag):
        return None
    info = ImageNetInfo(subset)
    return Labels(tuple(info.label_descriptions()), tuple(info.label_names()))


def list_wordnet_ids() -> tuple[str, ...]:
    """List the WordNet ids of ImageNet-1k's classes, in the usual order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
