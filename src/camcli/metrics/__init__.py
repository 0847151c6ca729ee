"""Numbers about maps and channels, without torch; the registry of the metrics of maps, and that of their controls.

A metric is one function, defined by its signature: **its positional parameters name what it is given** (the names of
:data:`GIVEN`), its keyword-only parameters are its settings. It returns a number for each map, ``(n,)``, NaN where that
is undefined; or a pair of these and of a curve for each, ``(n, t)``. A row's kind is the file that holds the function.

A control is a function ``(image, rng) -> map`` that knows nothing of the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from camcli.base.registry import Registry, Row

# What metrics are given, for n maps of one image.
GIVEN = {
    "maps": "the maps at the model's input size, signed, (n, h, w)",
    "image": "the model's input, (d, h, w)",
    "colours": "the colours of the input in 0..1, red first, (d, h, w)",
    "from_colours": "from such colours to the model's input",
    "divide": "from a number of regions of like colour, and their compactness, to the regions of the image, (h, w)",
    "score_of": "from arrays of changed images, each (k, d, h, w) with any k, to their scores, each (k,)",
    "explain_again": "from arrays of changed images, each (n, d, h, w), one for each map, or (1, d, h, w), for all, to "
    "the maps of these, each (n, h, w), NaN where none can be made; a control's is the control of that image",
    "region": "the pixels of the object, (h, w); none where no object is known",
    "boxes": "the object's boxes, x0, y0, x1, y1 in pixels of the model's input, (k, 4)",
}
# Those that say where the object is.
OBJECT_NAMES = {"region", "boxes"}
# Raised when a metric or a control gives other numbers than before, so that no table mixes the two.
DEFINITIONS = 3
NO_POSITIVE = "no value of the map is positive"
NO_OBJECT = "no object of this class lies in the part of the image that the model sees"
ALL_ZERO = "the map is zero everywhere"

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True, slots=True)
class MetricRow(Row):
    """One metric.

    Attributes:
        source: publication of the metric.
        better: whether higher or lower numbers are better; empty if a number only describes the map.
        undefined: reason why a map may have no number; empty if each has one.
        settings: settings of the function in this row.
        default: True if it is among those that are computed unless others are named.
        pooled: name of a function from the mean curves of several sets of images ``(m, t)`` to their numbers ``(m,)``,
            where the number of a set is not the mean of its images' numbers; empty where it is.
        axes: what the points of its curve are at, shares from 0 to 1, and what they are, with ``{measured}`` for the
            number that is read; None if its parts are no curve.
        favours: controls that it favours by construction, and that therefore prove nothing here, each with the reason.
        middles: True if the points are in the middle of equal parts, False if they go from 0 to 1.
    """

    source: str = field(kw_only=True)
    better: Better = field(kw_only=True)
    undefined: str = field(default="", kw_only=True)
    settings: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    default: bool = field(default=True, kw_only=True)
    pooled: str = field(default="", kw_only=True)
    axes: tuple[str, str] | None = field(default=None, kw_only=True)
    favours: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    middles: bool = field(default=False, kw_only=True)


_RISE = "Petsiuk et al. 2018, arXiv:1806.07421, sec. 3.2"
_ROAD = "Rong et al. 2022, arXiv:2202.00449"
_GRADCAM_PP = "Chattopadhyay et al. 2018, arXiv:1710.11063, sec. 4.1"
_PUT_IN = ("share of the pixels put in", "{measured}")
_REMOVED = ("share of the pixels removed", "{measured}")
_NO_ORDER = "the map is constant, so it puts the pixels in no order"
_NOT_AGAIN = "the map, or that of a changed image, is constant, or could not be made"
_NEVER_LOOKS = "it never looks at the image, and so never changes with it"
_STEADY = {"centre": _NEVER_LOOKS, "uniform": _NEVER_LOOKS}
_NO_SCORE = f"the score of the whole image is not positive, or {NO_POSITIVE}"

METRICS = Registry(
    MetricRow,
    "camcli.metrics",
    "metric",
    MetricRow(
        "faithfulness",
        "insertion-blur",
        "mean score while the most relevant pixels are put first into a blurred copy of the image",
        function="insertion",
        source=_RISE,
        better="higher",
        undefined=_NO_ORDER,
        axes=_PUT_IN,
        settings={"fill": "blur"},
    ),
    MetricRow(
        "faithfulness",
        "insertion-mean",
        "mean score while the most relevant pixels are put first into the image's mean colour",
        function="insertion",
        source=_RISE,
        better="higher",
        undefined=_NO_ORDER,
        axes=_PUT_IN,
        settings={"fill": "mean"},
        default=False,
    ),
    MetricRow(
        "faithfulness",
        "deletion-blur",
        "mean score while the most relevant pixels are blurred first",
        function="deletion",
        source=_RISE,
        better="lower",
        undefined=_NO_ORDER,
        axes=_REMOVED,
        settings={"fill": "blur"},
        default=False,
    ),
    MetricRow(
        "faithfulness",
        "deletion-mean",
        "mean score while the most relevant pixels first get the image's mean colour",
        function="deletion",
        source=_RISE,
        better="lower",
        undefined=_NO_ORDER,
        axes=_REMOVED,
        settings={"fill": "mean"},
    ),
    MetricRow(
        "faithfulness",
        "road-most",
        "mean score without the most relevant pixels, which are interpolated from the others",
        function="road",
        source=_ROAD,
        better="lower",
        undefined=_NO_ORDER,
        axes=_REMOVED,
        middles=True,
        settings={"first": "most"},
    ),
    MetricRow(
        "faithfulness",
        "road-least",
        "mean score without the least relevant pixels, which are interpolated from the others",
        function="road",
        source=_ROAD,
        better="higher",
        undefined=_NO_ORDER,
        axes=_REMOVED,
        middles=True,
        settings={"first": "least"},
    ),
    MetricRow(
        "faithfulness",
        "irof",
        "share of the score that is lost on the way while the most relevant regions get the image's mean colour first",
        source="Rieger and Hansen 2020, arXiv:2003.08747, sec. 3 (iterative removal of features)",
        better="higher",
        undefined=f"{_NO_ORDER}, or the score of the whole image is not positive",
        axes=("share of the regions removed", "{measured} over that of the image"),
        default=False,
    ),
    MetricRow(
        "faithfulness",
        "average-drop",
        "share of the score that is lost if the image is multiplied by the map",
        source=_GRADCAM_PP,
        better="lower",
        undefined=_NO_SCORE,
        favours={"uniform": "it leaves the image as it is, so nothing is ever lost"},
    ),
    MetricRow(
        "faithfulness",
        "average-increase",
        "share of images whose score rises if the image is multiplied by the map",
        source=_GRADCAM_PP,
        better="higher",
        undefined=_NO_SCORE,
    ),
    MetricRow(
        "faithfulness",
        "adcc",
        "harmonic mean of the score kept, the likeness to the map of the masked image, and the map's emptiness",
        source="Poppi et al. 2021, arXiv:2104.10252, sec. 3 (average DCC)",
        better="higher",
        undefined=f"{_NO_SCORE}; or {_NOT_AGAIN}",
        default=False,
    ),
    MetricRow(
        "faithfulness",
        "saco",
        "how far stronger groups of pixels matter more: from 1 to -1, 0 for a map that knows nothing",
        source="Wu et al. 2024, arXiv:2404.01415, alg. 1 (salience-guided faithfulness coefficient)",
        better="higher",
        undefined=_NO_ORDER,
        default=False,
    ),
    MetricRow(
        "faithfulness",
        "infidelity",
        "squared error of the map's sum over a square, at its best scale, as a guess of what the square is worth",
        source="Yeh et al. 2019, arXiv:1901.09392, def. 2.1, for squares, and attributions that include the input",
        better="lower",
        undefined=ALL_ZERO,
        default=False,
    ),
    MetricRow(
        "localisation",
        "pointing-game",
        "share of images in which the map's peak is on the object, or near it",
        source="Zhang et al. 2018, arXiv:1608.00507, sec. 4.2",
        better="higher",
        undefined=f"{NO_OBJECT}, or {NO_POSITIVE}",
    ),
    MetricRow(
        "localisation",
        "energy-in-box",
        "share of the map's positive values that is on the object",
        source="Wang et al. 2020, arXiv:1910.01279, sec. 4.3; Arras et al. 2022, arXiv:2003.07258, sec. 3.3",
        better="higher",
        undefined=f"{NO_OBJECT}, or {NO_POSITIVE}",
    ),
    MetricRow(
        "localisation",
        "relevance-rank",
        "share of the object's k pixels that is among the k of greatest value",
        source="Arras et al. 2022, arXiv:2003.07258, sec. 3.3 (relevance rank accuracy)",
        better="higher",
        undefined=NO_OBJECT,
    ),
    MetricRow(
        "localisation",
        "iou-20",
        "overlap of the object with the values of at least 20% of the greatest",
        function="iou",
        source="Zhou et al. 2016, arXiv:1512.04150, sec. 3.2, for the pixels themselves and not a box around them",
        better="higher",
        undefined=f"{NO_OBJECT}, or {NO_POSITIVE}",
        settings={"threshold": 0.2},
    ),
    MetricRow(
        "localisation",
        "iou-50",
        "overlap of the object with the values of at least 50% of the greatest",
        function="iou",
        source="as iou-20",
        better="higher",
        undefined=f"{NO_OBJECT}, or {NO_POSITIVE}",
        settings={"threshold": 0.5},
    ),
    MetricRow(
        "localisation",
        "max-box-acc",
        "share of images in which a box around strong values overlaps with the object's box, at the best threshold",
        function="box_accuracy",
        source="Choe et al. 2020, arXiv:2007.04178, sec. 4.2 (MaxBoxAccV2)",
        better="higher",
        undefined=f"{NO_OBJECT}, or {NO_POSITIVE}",
        pooled="pool_box_accuracy",
    ),
    MetricRow(
        "stability",
        "max-sensitivity",
        "greatest change of the map under little noise in the image, relative to the map",
        source="Yeh et al. 2019, arXiv:1901.09392, sec. 3 (SENS_MAX), over the length of the map, as Captum",
        better="lower",
        undefined=f"{ALL_ZERO}, or that of a changed image could not be made",
        favours=_STEADY,
        default=False,
    ),
    MetricRow(
        "stability",
        "robustness-shift",
        "similarity of the map of the shifted image to the shifted map",
        function="shift_robustness",
        source="own; the property is equivariance",
        better="higher",
        undefined=f"{_NOT_AGAIN}; or the shift leaves nothing of it",
        favours={
            "centre": "it never looks at the image, and is so wide that a few pixels hardly matter",
            "uniform": _NEVER_LOOKS,
        },
        default=False,
    ),
    MetricRow(
        "stability",
        "robustness-noise",
        "similarity of the map to those of noisy copies of the image",
        function="noise_robustness",
        source="own",
        better="higher",
        undefined=_NOT_AGAIN,
        favours=_STEADY,
        default=False,
    ),
    MetricRow(
        "stability",
        "robustness-jpeg",
        "similarity of the map to that of the input after it was a JPEG",
        function="jpeg_robustness",
        source="own",
        better="higher",
        undefined=_NOT_AGAIN,
        favours=_STEADY,
        default=False,
    ),
    MetricRow(
        "complexity",
        "sparseness",
        "Gini index of the values' magnitudes: 0 if they are equal, near 1 if few are all",
        source="Chalasani et al. 2020, arXiv:1810.06583, sec. 3",
        better="",
        undefined=ALL_ZERO,
        default=False,
    ),
    MetricRow(
        "complexity",
        "entropy",
        "entropy of the values' magnitudes, over that of equal ones: 1 if they are equal",
        source="Bhatt et al. 2020, arXiv:2005.00631, def. 4 (complexity), over its maximum",
        better="",
        undefined=ALL_ZERO,
        default=False,
    ),
    MetricRow(
        "complexity",
        "effective-area",
        "share of the pixels that would have the same participation ratio: (sum |v|)^2 / (n sum v^2)",
        source="the participation ratio",
        better="",
        undefined=ALL_ZERO,
        default=False,
    ),
)

CONTROLS = Registry(
    Row,
    "camcli.controls",
    "control",
    Row("controls", "random", "a random number for each pixel"),
    Row("controls", "smooth-random", "random numbers, smoothed to the size of an object's parts"),
    Row("controls", "centre", "a Gaussian around the centre of the image"),
    Row("controls", "uniform", "one value everywhere; it puts the pixels in no order"),
    Row("controls", "edges", "the strength of the image's edges, in the colour where it is greatest"),
    folder="camcli.metrics",
)
