"""The table of scores: which number of a class's the map explains.

Each row is a function ``(scores, index, rivals, activation) -> number``: from the scores of all classes
``(classes, ...)`` to one ``(...)``, differentiable. What stands behind the classes (the pixels of a region) is carried
along.
"""

from dataclasses import dataclass

from camcli.base.registry import Row, Table


@dataclass(frozen=True, slots=True)
class ScoreRow(Row):
    """One score.

    Attributes:
        against: whether classes are compared with rivals.
        cosine: whether it is of cosines in place of the scores, which only some networks have.
    """

    against: bool = False
    cosine: bool = False


SCORES = Table(
    ScoreRow,
    "camcli.scores",
    "score",
    ScoreRow("classes", "logit", "a class's score as the model gives it, before softmax or sigmoid"),
    ScoreRow("classes", "probability", "a class's probability: what softmax or sigmoid makes of its score"),
    ScoreRow("classes", "logprob", "the logarithm of a class's probability"),
    ScoreRow("classes", "margin", "a class's score minus that of the strongest other class", against=True),
    ScoreRow("classes", "similarity", "the cosine similarity of the prompt's and the image's embeddings", cosine=True),
    folder="camcli.targets.scores",
)
