"""The table of scores: which number of a class's the map explains.

Each row is a function ``(scores, index, rivals, activation) -> number``: from the scores of all classes
``(classes, ...)`` to one ``(...)``, differentiable. What stands behind the classes (the pixels of a region) is carried
along.
"""

from camcli.base.registry import Row, Table

SCORES = Table(
    "camcli.scores",
    "score",
    Row("classes", "logit", "a class's score as the model gives it, before softmax or sigmoid"),
    Row("classes", "probability", "a class's probability: what softmax or sigmoid makes of its score"),
    Row("classes", "logprob", "the logarithm of a class's probability"),
    Row("classes", "margin", "a class's score minus that of the strongest other class", against=True),
    Row("classes", "similarity", "the cosine similarity of the prompt's and the image's embeddings", cosine=True),
    folder="camcli.targets.scores",
)
