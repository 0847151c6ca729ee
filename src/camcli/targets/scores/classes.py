"""Scores of classes, as small functions of what the model says of all of them."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.targets.target import Activation, as_given

logit = as_given
similarity = as_given  # where the scores are cosines


def probability(
    scores: Float[Tensor, "classes *rest"], index: int, rivals: Sequence[int], activation: Activation
) -> Float[Tensor, "*rest"]:
    """Softmax or sigmoid of the scores, at the class; the score itself where that is a probability.

    Raises:
        RequestError: nothing makes probabilities of this model's scores.
    """
    del rivals
    if activation == "probabilities":
        return scores[index]
    return scores.sigmoid()[index] if _alone(scores, activation) else scores.softmax(0)[index]


def logprob(
    scores: Float[Tensor, "classes *rest"], index: int, rivals: Sequence[int], activation: Activation
) -> Float[Tensor, "*rest"]:
    """The logarithm of the class's probability, computed without it unless the model gives no more than that.

    Its gradient does not vanish where the probability is nearly 0.

    Raises:
        RequestError: nothing makes probabilities of this model's scores.
    """
    del rivals
    if activation == "probabilities":
        return scores[index].log()
    return F.logsigmoid(scores)[index] if _alone(scores, activation) else scores.log_softmax(0)[index]


def margin(
    scores: Float[Tensor, "classes *rest"], index: int, rivals: Sequence[int], activation: Activation
) -> Float[Tensor, "*rest"]:
    """The class's score minus the greatest of its rivals': why this class and not that.

    The gradient is the difference of the two classes' gradients, so what speaks for both cancels.
    """
    del activation
    return scores[index] - scores[list(rivals)].amax(0)


def _alone(scores: Tensor, activation: Activation) -> bool:
    """Whether each class has a probability of its own; softmax of a single score is 1 whatever it says."""
    if activation == "none":
        raise RequestError(
            "nothing makes probabilities of this model's scores",
            "say what does: --activation softmax or sigmoid; or explain the score itself: --score logit",
        )
    return len(scores) == 1 or activation == "sigmoid"
