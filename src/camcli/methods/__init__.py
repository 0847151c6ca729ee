"""The table of methods.

A method is one function, and its signature says everything: **its positional parameters name the evidence it is
handed** (the names of :data:`EVIDENCE`), its keyword-only parameters are its options (``-o name=value``). It returns
maps ``(n, h, w)`` at the layer or at the input, or ``(n, 3, H, W)`` at the input, or, where it looks at a layer alone,
several ``(n, k, h, w)``; signed, neither normalised nor rectified unless its paper says so. A row's kind is the file
that holds the function: a family of methods.

Two kinds have a form of their own:

- ``backprop``: ``(grad, passes) -> grad``, what happens to the gradient at a ReLU on its way to the input; the map is
  the gradient by the input, ``(n, 3, H, W)``.
- ``product``: two rows multiplied at the input's resolution, the map ``(n, 3, H, W)``; no function of its own.
"""

from camcli.signature import evidence_in
from camcli.tables import Row, Table

# By its name, what a method can be handed: where it is found, and what it is for n pictures.
EVIDENCE = {
    "act": ("layer", "the layer's output A, (n, c, h, w)"),
    "grad": ("layer", "the gradient of the score by A, (n, c, h, w)"),
    "curve": ("layer", "H A, the Hessian of the score by A times A, (n, c, h, w)"),
    "grad_of": ("layer", "from weights (n, classes) of the scores to the gradient of their sum by A, (n, c, h, w)"),
    "responses": ("layer", "from variants of the images to A and its gradient, one after the other"),
    "rest": ("layer", "from variants of A to the score; only what lies behind the layer runs again"),
    "images": ("input", "what the model is given, (n, 3, H, W)"),
    "input_grad": ("input", "the gradient of the score by the images, (n, 3, H, W)"),
    "ask": ("input", "from variants of the images to the score, one after the other"),
    "slopes": ("input", "from variants of the images to the score and its gradient by them"),
    "biases": ("input", "for each bias of the network bias times gradient, (n, c, ...)"),
    "score": ("score", "the score that is explained, (n,)"),
    "logits": ("score", "the score of every class, (n, classes)"),
    "index": ("score", "the class that is explained, (n,)"),
}
WORKS_AT = {"backprop": "input", "product": "layer and input"}


def works_at(row: Row) -> str:
    """Whether a method looks at a layer, at the input, or at both; read from its signature without running anything."""
    if row.kind in WORKS_AT:
        return WORKS_AT[row.kind]
    names = evidence_in(METHODS.home(row), row.function or row.name.replace("-", "_")) or ()
    places = [place for place in ("layer", "input") if any(EVIDENCE.get(name, ("",))[0] == place for name in names)]
    return " and ".join(places) or "input"


METHODS = Table(
    "camcli.methods",
    "method",
    Row(
        "gradient",
        "gradcam",
        "channels weighted by their mean gradient",
        "Selvaraju 2017, arXiv:1610.02391",
        cost="1 forward, 1 backward to the layer",
    ),
    Row(
        "gradient",
        "hirescam",
        "gradient times activation, cell by cell",
        "Draelos 2020, arXiv:2011.08891",
        cost="1 forward, 1 backward to the layer",
    ),
    Row(
        "backprop",
        "guided-backprop",
        "input gradient, only positive signals passing each ReLU",
        "Springenberg 2015, arXiv:1412.6806",
        caveat="guided backprop shows edges that hardly depend on the class or the weights: "
        "it fails the randomisation test of Adebayo et al. 2018, arXiv:1810.03292",
        cost="1 forward, 1 backward to the input",
    ),
    Row(
        "product",
        "guided-gradcam",
        "guided backprop where Grad-CAM is positive",
        "Selvaraju 2017, arXiv:1610.02391",
        parts=("guided-backprop", "gradcam"),
        caveat="its place comes from Grad-CAM, its fine detail from guided backprop, which hardly depends on the "
        "weights (Adebayo et al. 2018, arXiv:1810.03292)",
        cost="1 forward, 1 backward to the layer, 1 to the input",
    ),
    Row(
        "backprop",
        "deconvnet",
        "input gradient, only positive signals passing back, whether a ReLU was open or not",
        "Zeiler 2014, arXiv:1311.2901",
        caveat="a deconvnet shows edges that hardly depend on the class or the weights (Nie et al. 2018, "
        "arXiv:1805.07039)",
        cost="1 forward, 1 backward to the input",
    ),
    Row(
        "masking",
        "scorecam",
        "channels weighted by the score of the image masked by them",
        "Wang 2020, arXiv:1910.01279",
        cost="2 forwards, and 1 for each channel",
    ),
    Row(
        "masking",
        "gscorecam",
        "Score-CAM of the 300 channels of greatest gradient",
        "Chen 2022 (ACCV)",
        cost="2 forwards, 1 backward to the layer, and 1 forward for each of 300 channels",
    ),
    Row(
        "masking",
        "ss-cam",
        "Score-CAM averaged over noise on the masks",
        "Wang 2020, arXiv:2006.14255",
        cost="2 forwards, and 35 for each channel",
    ),
    Row(
        "masking",
        "is-cam",
        "Score-CAM averaged while the masked image fades in",
        "Naidu 2020, arXiv:2010.03023",
        cost="2 forwards, and 9 for each channel",
    ),
    Row(
        "masking",
        "ablation-cam",
        "channels weighted by the share of the score that goes with them",
        "Desai 2020 (WACV)",
        caveat="its weights are shares of the score: where the score is negative the map's sign turns over "
        "(-o per=norm keeps it)",
        cost="1 forward, and 1 of the part behind the layer for each channel",
    ),
    Row(
        "masking",
        "occlusion",
        "how much the score drops when a grey square hides a place",
        "Zeiler 2014, arXiv:1311.2901",
        cost="1 forward, and 1 for each place of the square (169)",
    ),
    Row(
        "masking",
        "rise",
        "the mean of random masks, weighted by the score of the image under them",
        "Petsiuk 2018, arXiv:1806.07421",
        cost="1 forward, and 4000",
    ),
    Row(
        "pixel",
        "saliency",
        "size of the input gradient, greatest over the colours",
        "Simonyan 2013, arXiv:1312.6034",
        cost="1 forward, 1 backward to the input",
    ),
    Row(
        "pixel",
        "input-x-gradient",
        "input times gradient",
        "Shrikumar 2016, arXiv:1605.01713",
        cost="1 forward, 1 backward to the input",
    ),
    Row(
        "pixel",
        "smoothgrad",
        "input gradient averaged over noisy copies",
        "Smilkov 2017, arXiv:1706.03825",
        cost="1 forward, and 50 with a backward to the input",
    ),
    Row(
        "pixel",
        "integrated-gradients",
        "input gradient averaged on the way from grey to the image, times the way; sums to the score's difference",
        "Sundararajan 2017, arXiv:1703.01365",
        cost="1 forward, and 50 with a backward to the input",
    ),
    Row(
        "pixel",
        "fullgrad",
        "input times gradient and every bias times its gradient, each rescaled, all summed",
        "Srinivas 2019, arXiv:1905.00780",
        cost="1 forward, 1 backward to the input",
    ),
)
