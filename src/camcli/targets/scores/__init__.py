"""Registry of the scores that a map can explain.

Each row is a differentiable function ``(scores, index, rivals, activation) -> number`` from the scores of all classes
``(classes, ...)`` to one number ``(...)``. Further dimensions, such as the pixels of a region, are kept.
"""

from dataclasses import dataclass

from camcli.base.registry import Registry, Row


@dataclass(frozen=True, slots=True)
class ScoreRow(Row):
    """One score.

    Attributes:
        has_rivals: True if classes are compared with rivals.
        is_cosine: True if it is computed from cosines, which only some networks have, instead of scores.
    """

    has_rivals: bool = False
    is_cosine: bool = False


SCORES = Registry(
    ScoreRow,
    "camcli.scores",
    "score",
    ScoreRow("classes", "logit", "a class's score as the model gives it, before softmax or sigmoid"),
    ScoreRow("classes", "probability", "a class's probability: what softmax or sigmoid makes of its score"),
    ScoreRow("classes", "logprob", "the logarithm of a class's probability"),
    ScoreRow("classes", "margin", "a class's score minus that of the strongest other class", has_rivals=True),
    ScoreRow(
        "classes", "similarity", "the cosine similarity of the prompt's and the image's embeddings", is_cosine=True
    ),
    folder="camcli.targets.scores",
)
