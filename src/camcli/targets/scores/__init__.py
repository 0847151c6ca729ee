"""Registry of the scores that a map can explain.

Each row is a differentiable function ``(scores, index, rivals, activation) -> number`` from the scores of all classes
``(classes, ...)`` to one number ``(...)``. Further dimensions, such as the pixels of a region, are kept. In place of
scores those of a box are given its corners ``(4,)``: x0, y0, x1, y1.
"""

from dataclasses import dataclass

from camcli.base.registry import Registry, Row


@dataclass(frozen=True, slots=True)
class ScoreRow(Row):
    """One score.

    In ``summary`` and ``of_probabilities``, ``{noun}`` stands for "class" or "prompt", and ``{activation}`` for the
    function that turns the model's scores into probabilities.

    Attributes:
        of_probabilities: the summary for models that return probabilities; empty if it is the same.
        has_rivals: True if classes are compared with rivals.
        is_cosine: True if it is computed from cosines, which only some networks have, instead of scores.
        of_box: True if it is computed from the corners of a detector's box instead of scores.
    """

    of_probabilities: str = ""
    has_rivals: bool = False
    is_cosine: bool = False
    of_box: bool = False

    def describe(self, noun: str, activation: str) -> str:
        """Describe the score for a model with this noun for classes and this activation."""
        returned = activation == "probabilities"
        text = (self.of_probabilities if returned else "") or self.summary
        return text.format(noun=noun, activation="softmax or sigmoid" if activation == "none" else activation)


SCORES = Registry(
    ScoreRow,
    "camcli.scores",
    "score",
    ScoreRow("classes", "logit", "{noun} score as returned by the model, before {activation}"),
    ScoreRow(
        "classes",
        "probability",
        "{noun} probability ({activation} of the logits)",
        of_probabilities="{noun} probability, as returned by the model",
    ),
    ScoreRow("classes", "logprob", "logarithm of the {noun} probability"),
    ScoreRow(
        "classes",
        "margin",
        "{noun} score minus that of the strongest other {noun}",
        of_probabilities="{noun} probability, as returned by the model, minus that of the strongest other {noun}",
        has_rivals=True,
    ),
    ScoreRow("classes", "similarity", "cosine similarity of the prompt's and the image's embeddings", is_cosine=True),
    ScoreRow("boxes", "box-left", "x of the box's left edge, in pixels of the model's input", of_box=True),
    ScoreRow("boxes", "box-top", "y of the box's top edge, in pixels of the model's input", of_box=True),
    ScoreRow("boxes", "box-right", "x of the box's right edge, in pixels of the model's input", of_box=True),
    ScoreRow("boxes", "box-bottom", "y of the box's bottom edge, in pixels of the model's input", of_box=True),
    folder="camcli.targets.scores",
)
