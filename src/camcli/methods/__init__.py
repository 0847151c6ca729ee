"""Registry of methods.

A method is one function, defined by its signature: **its positional parameters name the signals that it is given**
(the names of :data:`SIGNALS`), its keyword-only parameters are its options (``-o name=value``). It returns maps
``(n, h, w)`` at the layer or at the input, or ``(n, 3, H, W)`` at the input; signed, neither normalised nor rectified
unless its paper does so. A row's kind is the file that holds the function: a family of methods.

Three kinds have a form of their own:

- ``backprop``: ``(grad, passes) -> grad``, the backward rule of a ReLU; the map is the gradient by the input,
  ``(n, 3, H, W)``. A rule with an option ``activations`` takes a third tensor, ``slope``: at ``activations=all`` it is
  phi'(x) of every other element-wise activation phi.
- ``concept``: decomposes a layer's output, whatever the class, and returns
  :class:`camcli.methods.concept.Concepts`: all concepts of an image are one explanation. It can take ``act``, ``basis``
  and ``logits_from_layer``, the latter two None where there are none.
- ``product``: two rows multiplied at the input's resolution, the map ``(n, 3, H, W)``; no function of its own.
"""

import re
from dataclasses import dataclass
from typing import Literal

from camcli.base.errors import RequestError, did_you_mean
from camcli.base.registry import Registry, Row
from camcli.base.signature import read_positional_names

# Signals by name: the place that they belong to, and their meaning and shape for n images.
SIGNALS = {
    "act": ("layer", "the layer's output A, (n, c, h, w)"),
    "grad": ("layer", "the gradient of the score with respect to A, (n, c, h, w)"),
    "hvp": ("layer", "H A, the Hessian of the score with respect to A times A, (n, c, h, w)"),
    "grad_of": (
        "layer",
        "from weights (n, classes) of the scores to the gradient of their sum with respect to A, (n, c, h, w)",
    ),
    "act_and_grad": ("layer", "from variants of the images to A and its gradient, one after the other"),
    "score_from_layer": ("layer", "from variants of A to the score; only the part after the layer is rerun"),
    "logits_from_layer": (
        "layer",
        "from variants of A to the scores of every class, rerun in the same way; None where that is not possible",
    ),
    "basis": ("layer", "the result of the row's ``fit`` on cells of several images; None where each image is separate"),
    "onto_input": (
        "layer",
        "from maps of the layer's cells (n, k, h, w) to the input's pixels (n, k, H, W), bilinearly",
    ),
    "images": ("input", "the model's input, (n, 3, H, W), or (n, 1, H, W) for a greyscale model"),
    "input_grad": ("input", "the gradient of the score with respect to the images, of the same shape"),
    "score_of": ("input", "from variants of the images to the score, one after the other"),
    "score_and_grad": ("input", "from variants of the images to the score and its gradient with respect to them"),
    "biases": ("input", "bias times gradient for each bias of the network, (n, c, ...)"),
    "attn": (
        "attention",
        "the weights of each attention, a list of (n, heads, t, t); last perhaps a pooling (n, heads, q, t)",
    ),
    "attn_grad": ("attention", "the gradients of the score with respect to them, also a list"),
    "rows_to_grid": (
        "attention",
        "from relevance (n, t), or from the rows of (n, q, t) that the score reads, to (n, h, w)",
    ),
    "to_grid": ("attention", "from a number for each token, (n, t), to (n, h, w)"),
    "query": (
        "attention",
        "the query of the one token that the score reads after the last attention, as multiplied with the keys, (n, "
        "heads, d)",
    ),
    "key": ("attention", "the keys that this query is multiplied with, (n, heads, t, d)"),
    "value": ("attention", "the values of the tokens that it attends to, (n, heads, t, d)"),
    "attn_out_grad": (
        "attention",
        "the gradient of the score with respect to o, the values weighted by attention, (n, heads, d)",
    ),
    "early_exit_grads": (
        "attention",
        "from how tokens are pooled (head, or mean) to the gradients with respect to attention, (n, heads, q, t), of "
        "the scores of the network cut after each block, the last first",
    ),
    "value_tokens": (
        "attention",
        "what the last attention adds to each token if every token attends only to itself, for token_score, (n, t, c)",
    ),
    "value_path": (
        "attention",
        "from a rule (V to a replacement of A V) and a number of last blocks to the tokens of a parallel path, with "
        "attention by this rule and without MLPs, for token_score, (n, t, c)",
    ),
    "token_score": (
        "attention",
        "from tokens (n, t, c) to the score of each token alone, without its bias, (n, t)",
    ),
    "token_cosines": ("attention", "from tokens to the cosines of each token alone and the prompts, (n, t, prompts)"),
    "block_tokens": (
        "attention",
        "from a number of last blocks to the tokens that enter the first of them, class token and all, (n, t, c)",
    ),
    "cosine_and_grad": (
        "attention",
        "from a number of last blocks to a function from variants of the tokens that enter them to the cosine of image "
        "and prompt and its gradient",
    ),
    "token_cosine_blank": ("attention", "from tokens to the cosine of each with the empty prompt, (n, t)"),
    "cosines": ("score", "the cosine of the image and every prompt, -inf for prompts of other images, (n, prompts)"),
    "score": ("score", "the score that is explained, (n,)"),
    "logits": ("score", "the score of every class, (n, classes)"),
    "index": ("score", "the class that is explained, (n,)"),
    "channel": ("score", "the channel of the layer that is requested, (n,)"),
}

# Old names of signals, from the last release, that methods of other packages may still use.
RENAMED_SIGNALS = {
    "curve": "hvp",
    "ask": "score_of",
    "slopes": "score_and_grad",
    "responses": "act_and_grad",
    "rest": "score_from_layer",
    "rest_scores": "logits_from_layer",
    "fitted": "basis",
    "stopped": "early_exit_grads",
    "own": "value_tokens",
    "path": "value_path",
    "alone": "token_score",
    "alone_cosines": "token_cosines",
    "alone_blank": "token_cosine_blank",
    "told_grad": "attn_out_grad",
    "cells": "to_grid",
    "spread": "rows_to_grid",
}


@dataclass(frozen=True, slots=True)
class MethodRow(Row):
    """One method.

    Attributes:
        paper: the paper that it comes from.
        parts: the rows that a combination, which has no function of its own, consists of.
        caveat: limitation that the user must know.
        cost: cost in words: "1 forward, 1 backward to the layer".
        fuse: name of the function in the same file that fuses the maps of several layers as in the paper.
        fit: for methods that can be fitted on several images together (``-o over=set``), name of the function in the
            same file that does so, from cells of the layer's output, ``(m, c)`` of each image, to the signal ``basis``.
        finds: what a method of kind ``concept`` finds; it decides how its maps are drawn.
        aliases: other libraries' names of the method, apart from spellings that :func:`fold_name` makes equal.
    """

    paper: str = ""
    parts: tuple[str, ...] = ()
    caveat: str = ""
    cost: str = ""
    fuse: str = ""
    fit: str = ""
    finds: Literal["concepts", "components", "segments"] = "concepts"
    aliases: tuple[str, ...] = ()


# Methods of other libraries that are not here: by folded name, what is nearest.
HIDING = "occlusion or rise, which also hide parts of the image and watch the score"
ON_THE_WAY = "integrated-gradients, which also shares the score's difference from a baseline among the pixels"
RELEVANCE = "input-x-gradient; for transformers gae, which also follows relevance through attention"
RULES = "input-x-gradient --backward {}: rules for the gradient of any method, in transformers"
ABSENT = {
    **dict.fromkeys(("lime", "limeimageexplainer", "kernelshap", "featureablation", "shapleyvaluesampling"), HIDING),
    **dict.fromkeys(("featurepermutation", "extremalperturbation", "meaningfulperturbation"), HIDING),
    **dict.fromkeys(("shap", "gradientshap", "gradshap", "deepshap", "deeplift", "deepliftshap"), ON_THE_WAY),
    **dict.fromkeys(("expectedgradients", "xrai", "guidedig", "blurig", "layerintegratedgradients"), ON_THE_WAY),
    **dict.fromkeys(("lrp", "epsilonlrp", "layerlrp", "relevance", "relevancecam"), RELEVANCE),
    **dict.fromkeys(("attnlrp", "lxt"), RULES.format("attnlrp")),
    **dict.fromkeys(("libra", "libragrad"), RULES.format("libra")),
    **dict.fromkeys(("cp", "cplrp", "conservativepropagation"), RULES.format("cp")),
    **dict.fromkeys(("layergradientxactivation", "layergradxact"), "hirescam, gradient times activation, or layercam"),
    **dict.fromkeys(("noisetunnel", "vargrad", "squaregrad"), "smoothgrad, the mean over noisy copies"),
    **dict.fromkeys(("transformerattribution", "chefer", "beyondattention"), "gae, by the same authors"),
    **dict.fromkeys(("groupcam", "cameras", "polycam"), "scorecam, layercam or ablation-cam"),
    **dict.fromkeys(("iba", "informationbottleneck"), "m2ib, the same for models that compare images with prompts"),
    **dict.fromkeys(("tcav", "craft", "ace"), "dff, which also finds concepts"),
}


def fold_name(name: str) -> str:
    """Return what is the same in ``GradCAMPlusPlus``, ``grad_cam_pp`` and ``gradcam++``: ``gradcampp``."""
    return re.sub(r"plus_?plus|\+\+", "pp", re.sub(r"[-\s.]", "_", name.casefold())).replace("_", "")


class MethodRegistry(Registry[MethodRow]):
    """The methods, found also by the spellings and names that other libraries have for them."""

    def find(self, name: str) -> MethodRow:
        """Return the row of this name, in any spelling, or of an alias.

        Raises:
            RequestError: there is no such method; the hint names the nearest.
        """
        if found := self._find(name):
            return found
        folded = fold_name(name)
        near = did_you_mean(name, self.names())
        if folded in ABSENT:
            near = f"nearest to it: {ABSENT[folded]}"
        raise RequestError(
            f"there is no method {name!r}",
            "\n".join(filter(None, [near, f"there are: {', '.join(self.names())}", "what each is: camcli methods"])),
        )

    def _find(self, name: str) -> MethodRow | None:
        folded = fold_name(name)
        same = (row for row in self.rows if row.name == name)
        alike = (row for row in self.rows if folded == fold_name(row.name) or folded in row.aliases)
        return next(same, None) or next(alike, None)

    def canonical_names(self, names: str) -> str:
        """Return names joined by commas, each as its row is called; ``auto`` stays.

        Raises:
            RequestError: there is no such method, or none is named.
        """
        words = [word.strip() for word in names.split(",") if word.strip()]
        if not words:
            raise RequestError("no method is named", f"there are: {', '.join(self.names())}")
        return ",".join(word if word == "auto" else self.find(word).name for word in words)

    def canonical_option(self, option: str) -> str:
        """Return ``method.name=value`` with the method as its row is called; anything else as it is."""
        left, equals, value = option.partition("=")
        method, dot, name = left.strip().rpartition(".")
        row = self._find(method) if dot and equals else None
        return f"{row.name}.{name}={value}" if row else option


PLACES_BY_KIND = {"backprop": "input", "product": "layer and input"}


def works_at(row: MethodRow) -> str:
    """Return whether a method works at a layer, at the input, or at both, from its signature without importing it."""
    if row.kind in PLACES_BY_KIND:
        return PLACES_BY_KIND[row.kind]
    names = read_positional_names(METHODS.module_path(row), row.function_name) or ()
    found = {SIGNALS.get(RENAMED_SIGNALS.get(name, name), ("",))[0] for name in names}
    places = [place for place in ("layer", "input", "attention") if place in found]
    return " and ".join(places) or "input"


METHODS = MethodRegistry(
    MethodRow,
    "camcli.methods",
    "method",
    MethodRow(
        "gradient",
        "gradcam",
        "channels weighted by their mean gradient",
        "Selvaraju 2017, arXiv:1610.02391",
        cost="1 forward, 1 backward to the layer",
        aliases=("layergradcam",),
    ),
    MethodRow(
        "gradient",
        "hirescam",
        "gradient times activation, cell by cell",
        "Draelos 2020, arXiv:2011.08891",
        cost="1 forward, 1 backward to the layer",
    ),
    MethodRow(
        "gradient",
        "odam",
        "gradient times activation, cell by cell, where positive: for the boxes of detectors",
        "Zhao 2023, arXiv:2304.06354",
        cost="1 forward, 1 backward to the layer for each box",
    ),
    MethodRow(
        "backprop",
        "guided-backprop",
        "input gradient, only positive signals passing each ReLU",
        "Springenberg 2015, arXiv:1412.6806",
        caveat="guided backprop shows edges that hardly depend on the class or the weights: "
        "it fails the randomisation test of Adebayo et al. 2018, arXiv:1810.03292",
        cost="1 forward, 1 backward to the input",
        aliases=("guidedbackpropagation", "gbp"),
    ),
    MethodRow(
        "product",
        "guided-gradcam",
        "guided backprop where Grad-CAM is positive",
        "Selvaraju 2017, arXiv:1610.02391",
        parts=("guided-backprop", "gradcam"),
        caveat=(
            "its location comes from Grad-CAM, its fine detail from guided backprop, which hardly depends on the "
            "weights (Adebayo et al. 2018, arXiv:1810.03292)"
        ),
        cost="1 forward, 1 backward to the layer, 1 to the input",
    ),
    MethodRow(
        "attention",
        "rollout",
        "attention multiplied through all blocks, with each residual connection",
        "Abnar 2020, arXiv:2005.00928",
        caveat="attention rollout does not depend on the class: its map is the same for every class",
        cost="1 forward, 1 backward through the head",
        aliases=("attentionrollout",),
    ),
    MethodRow(
        "attention",
        "gae",
        "positive attention times gradient, added up through all blocks",
        "Chefer 2021, arXiv:2103.15679",
        cost="1 forward, 1 backward to the first attention",
        aliases=("genericattention", "genericattentionexplainability"),
    ),
    MethodRow(
        "attention",
        "attention",
        "the last block's attention of the token that the score reads",
        "Dosovitskiy 2021, arXiv:2010.11929",
        caveat="raw attention does not depend on the class, and shows one block of many",
        cost="1 forward, 1 backward through the head",
        aliases=("rawattention", "lastattention"),
    ),
    MethodRow(
        "attention",
        "legrad",
        "positive gradient of the attention, block by block, with the head applied after each block",
        "Bousselham 2024, arXiv:2404.03214",
        cost="2 forwards, 1 backward through each block and the head",
    ),
    MethodRow(
        "attention",
        "grad-eclip",
        "values of the last attention, weighted by gradient and by similarity of query and key",
        "Zhao 2024, arXiv:2502.18816",
        cost="1 forward, 1 backward to the last attention",
    ),
    MethodRow(
        "attention",
        "maskclip",
        "the class score of each patch's own value in the last attention",
        "Zhou 2022, arXiv:2112.01071",
        cost="1 forward, 1 of the last block and 1 of the head for each patch",
    ),
    MethodRow(
        "attention",
        "clip-surgery",
        "each patch's similarity to the prompt along a path of value-value attention, minus what all prompts share",
        "Li 2023, arXiv:2304.05653",
        cost="1 forward, 1 of 6 blocks and 1 of the head for each patch",
    ),
    MethodRow(
        "optimised",
        "m2ib",
        "bits of each patch's token that pass a bottleneck of noise while the image stays like the prompt",
        "Wang 2023, arXiv:2312.17174",
        cost="1 forward, and 100 of the last 2 blocks with a backward to them",
        aliases=("multimodalinformationbottleneck",),
    ),
    MethodRow(
        "gradient",
        "cam",
        "channels weighted by the class's weights in the head",
        "Zhou 2016, arXiv:1512.04150",
        cost="1 forward, 1 backward to the layer, 4 forwards of the part after the layer",
        aliases=("classactivationmap", "classactivationmapping"),
    ),
    MethodRow(
        "gradient",
        "gradcam++",
        "positive gradients, weighted cell by cell",
        "Chattopadhyay 2018, arXiv:1710.11063",
        cost="1 forward, 1 backward to the layer",
        caveat="made for activations that are not negative: elsewhere its weights have poles",
        function="gradcam_plus_plus",
    ),
    MethodRow(
        "gradient",
        "smooth-gradcam++",
        "Grad-CAM++ with gradients averaged over noisy copies",
        "Omeiza 2019, arXiv:1908.01224",
        cost="1 forward; 1 forward and 1 backward to the layer a sample (5)",
        caveat="made for activations that are not negative: elsewhere its weights have poles",
        function="smooth_gradcam_plus_plus",
    ),
    MethodRow(
        "gradient",
        "xgradcam",
        "channels weighted by their share of the score",
        "Fu 2020, arXiv:2008.02312",
        cost="1 forward, 1 backward to the layer",
        caveat=(
            "its weights are divided by each channel's sum, and are meaningless where that is near zero: choose a "
            "layer after a ReLU"
        ),
    ),
    MethodRow(
        "gradient",
        "layercam",
        "positive gradient times activation, cell by cell",
        "Jiang 2021, doi:10.1109/TIP.2021.3089943",
        cost="1 forward, 1 backward to the layer",
        fuse="layercam_fusion",
    ),
    MethodRow(
        "gradient",
        "gradcam-elementwise",
        "positive contributions, cell by cell",
        "Pillai 2021, doi:10.1609/aaai.v35i3.16344",
        cost="1 forward, 1 backward to the layer",
    ),
    MethodRow(
        "gradient",
        "eigen-gradcam",
        "first principal component of gradient times activation",
        "no paper; pytorch-grad-cam 2021",
        cost="1 forward, 1 backward to the layer",
        caveat="evidence for and against the class can both be positive",
    ),
    MethodRow(
        "gradient",
        "seg-eigen-cam",
        "first principal component of |gradient| times activation",
        "Chung 2025, doi:10.3390/app15137562",
        cost="1 forward, 1 backward to the layer",
        caveat="evidence for and against the class can both be positive",
    ),
    MethodRow(
        "gradient",
        "shapleycam",
        "Grad-CAM corrected by the score's curvature",
        "Cai 2025, arXiv:2501.06261",
        cost="1 forward, 2 backwards to the layer",
    ),
    MethodRow(
        "gradient",
        "finer-cam",
        "Grad-CAM of the class against the classes most like it",
        "Zhang 2025, arXiv:2501.11309",
        cost="1 forward, 1 backward to the layer",
    ),
    MethodRow(
        "activation",
        "eigencam",
        "first principal component of the activations",
        "Muhammad 2020, arXiv:2008.00299",
        cost="1 forward",
        caveat="it is the same for every class",
    ),
    MethodRow(
        "activation",
        "kpca-cam",
        "first kernel principal component of the activations",
        "Karmani 2024, arXiv:2410.00267",
        cost="1 forward",
        caveat="it is the same for every class",
    ),
    MethodRow(
        "activation",
        "fem",
        "where channels are unusually active",
        "Fuad 2020, doi:10.1109/IPTA50016.2020.9286629",
        cost="1 forward",
        caveat="it is the same for every class",
    ),
    MethodRow(
        "activation",
        "lafam",
        "mean of the activations",
        "Karjauv 2024, arXiv:2407.06059",
        cost="1 forward",
        caveat="it is the same for every class",
    ),
    MethodRow(
        "concept",
        "dff",
        "the activations as a few concepts, a colour each, and the classes whose scores they raise",
        "Collins 2018, arXiv:1806.10206",
        cost="1 forward, 1 of the part after the layer for each concept; beforehand, 1 for each of up to 100 images",
        caveat="concepts do not depend on a class: a target has no effect, but on the importance (-o importance=32)",
        fit="dff_directions",
        aliases=("deepfeaturefactorization", "deepfeaturefactorisation"),
    ),
    MethodRow(
        "concept",
        "pca",
        "principal components of the cells of the foreground, as red, green and blue",
        "Oquab 2023, arXiv:2304.07193",
        cost="1 forward; beforehand, 1 for each of up to 100 images",
        caveat="components do not depend on a class: a target has no effect",
        fit="pca_components",
        finds="components",
        aliases=("principalcomponents", "principalcomponentanalysis"),
    ),
    MethodRow(
        "concept",
        "kmeans",
        "segments of alike cells, a colour each, and the classes whose scores they raise",
        "Lloyd 1982, doi:10.1109/TIT.1982.1056489",
        cost="1 forward, 1 of the part after the layer for each segment; beforehand, 1 for each of up to 100 images",
        caveat="segments do not depend on a class: a target has no effect",
        fit="kmeans_centres",
        finds="segments",
    ),
    MethodRow(
        "activation",
        "activation",
        "a channel of the layer, unchanged",
        "no paper; the activation A_k itself",
        cost="1 forward",
        caveat="it shows where a channel is active, and not whether that matters to a class",
    ),
    MethodRow(
        "activation",
        "random",
        "noise, a baseline for comparisons",
        "no paper; uniform noise",
        cost="1 forward",
        caveat="it explains nothing: it is noise",
        aliases=("randomcam",),
    ),
    MethodRow(
        "backprop",
        "deconvnet",
        "input gradient, only positive signals passing back, whether a ReLU was active or not",
        "Zeiler 2014, arXiv:1311.2901",
        caveat="a deconvnet shows edges that hardly depend on the class or the weights (Nie et al. 2018, "
        "arXiv:1805.07039)",
        cost="1 forward, 1 backward to the input",
        aliases=("deconvolution", "deconv"),
    ),
    MethodRow(
        "masking",
        "scorecam",
        "channels weighted by the score of the image masked by them",
        "Wang 2020, arXiv:1910.01279",
        cost="2 forwards, and 1 for each channel",
    ),
    MethodRow(
        "masking",
        "gscorecam",
        "Score-CAM of the 300 channels of greatest gradient",
        "Chen 2022, doi:10.1007/978-3-031-26316-3_35",
        cost="2 forwards, 1 backward to the layer, and 1 forward for each of 300 channels",
    ),
    MethodRow(
        "masking",
        "ss-cam",
        "Score-CAM averaged over noise on the masks",
        "Wang 2020, arXiv:2006.14255",
        cost="2 forwards, and 35 for each channel",
    ),
    MethodRow(
        "masking",
        "is-cam",
        "Score-CAM averaged while the masked image fades in",
        "Naidu 2020, arXiv:2010.03023",
        cost="2 forwards, and 9 for each channel",
    ),
    MethodRow(
        "optimised",
        "opti-cam",
        "the weights of the channels whose map, as a mask of the image, leaves the highest score",
        "Zhang 2023, arXiv:2301.07002",
        cost="1 forward, and 100 with a backward to the input",
    ),
    MethodRow(
        "masking",
        "ablation-cam",
        "channels weighted by the share of the score that is lost without them",
        "Desai 2020, doi:10.1109/WACV45572.2020.9093360",
        caveat=(
            "its weights are shares of the score: where the score is negative the map's sign flips (-o per=norm keeps "
            "it)"
        ),
        cost="1 forward, and 1 of the part after the layer for each channel",
    ),
    MethodRow(
        "cells",
        "recipro-cam",
        "the score of each cell alone",
        "Byun 2022, arXiv:2209.14074",
        cost="1 forward, and 1 of the part after the layer for each cell",
        aliases=("vitreciprocam",),
    ),
    MethodRow(
        "masking",
        "occlusion",
        "how much the score drops when a grey square hides a place",
        "Zeiler 2014, arXiv:1311.2901",
        cost="1 forward, and 1 for each place of the square (169)",
        aliases=("occlusionsensitivity",),
    ),
    MethodRow(
        "masking",
        "rise",
        "the mean of random masks, weighted by the score of the image under them; for boxes D-RISE",
        "Petsiuk 2018, arXiv:1806.07421",
        cost="1 forward, and 4000",
        aliases=("drise",),
    ),
    MethodRow(
        "sensitivity",
        "sobol",
        "share of the score's variance under random masks that each cell of the image has a part in",
        "Fel 2021, arXiv:2111.04138",
        cost="1 forward, and 2080",
        aliases=("sobolattributionmethod", "sobolattribution"),
    ),
    MethodRow(
        "sensitivity",
        "hsic",
        "dependence of the score under random masks on each cell of the image",
        "Novello 2022, arXiv:2206.06219",
        cost="1 forward, and 500",
        aliases=("hsicattributionmethod", "hsicattribution"),
    ),
    MethodRow(
        "pixel",
        "saliency",
        "magnitude of the input gradient, maximum over the colour channels",
        "Simonyan 2013, arXiv:1312.6034",
        cost="1 forward, 1 backward to the input",
        aliases=("vanillagradient", "vanillagradients", "vanillasaliency", "gradient", "gradients"),
    ),
    MethodRow(
        "pixel",
        "input-x-gradient",
        "input times gradient",
        "Shrikumar 2016, arXiv:1605.01713",
        cost="1 forward, 1 backward to the input",
        aliases=("gradientxinput", "gradientinput", "inputtimesgradient", "inputxgrad", "gradxinput"),
    ),
    MethodRow(
        "pixel",
        "smoothgrad",
        "input gradient averaged over noisy copies",
        "Smilkov 2017, arXiv:1706.03825",
        cost="1 forward, and 50 with a backward to the input",
    ),
    MethodRow(
        "pixel",
        "integrated-gradients",
        "input gradient averaged on the path from grey to the image, times the difference; sums to the score's "
        "difference",
        "Sundararajan 2017, arXiv:1703.01365",
        cost="1 forward, and 50 with a backward to the input",
        aliases=("ig", "integratedgradient", "intgrad"),
    ),
    MethodRow(
        "pixel",
        "fullgrad",
        "input times gradient and every bias times its gradient, each rescaled, all summed",
        "Srinivas 2019, arXiv:1905.00780",
        cost="1 forward, 1 backward to the input",
        aliases=("fullgradient",),
    ),
)
