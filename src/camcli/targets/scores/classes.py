"""Scores of classes, as functions of the model's scores of all classes."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.targets.target import Activation, logit

similarity = logit  # where the scores are cosines


def probability(
    scores: Float[Tensor, "classes *rest"], index: int, rivals: Sequence[int], activation: Activation
) -> Float[Tensor, "*rest"]:
    """Compute softmax or sigmoid of the scores at the class; return a score that is a probability itself.

    Raises:
        RequestError: the model's scores have no activation.
    """
    del rivals
    if activation == "probabilities":
        return scores[index]
    return scores.sigmoid()[index] if _is_independent(scores, activation) else scores.softmax(0)[index]


def logprob(
    scores: Float[Tensor, "classes *rest"], index: int, rivals: Sequence[int], activation: Activation
) -> Float[Tensor, "*rest"]:
    """Compute the log-probability of the class, from its score unless the model returns probabilities alone.

    Its gradient does not vanish where the probability is nearly 0.

    Raises:
        RequestError: the model's scores have no activation.
    """
    del rivals
    if activation == "probabilities":
        return scores[index].log()
    return F.logsigmoid(scores)[index] if _is_independent(scores, activation) else scores.log_softmax(0)[index]


def margin(
    scores: Float[Tensor, "classes *rest"], index: int, rivals: Sequence[int], activation: Activation
) -> Float[Tensor, "*rest"]:
    """Compute the class's score minus the greatest of its rivals': why this class and not that.

    The gradient is the difference of the two classes' gradients, so that contributions to both cancel.
    """
    del activation
    return scores[index] - scores[list(rivals)].amax(0)


def _is_independent(scores: Tensor, activation: Activation) -> bool:
    """Return whether classes have independent probabilities; a single score has, as its softmax is always 1."""
    if activation == "none":
        raise RequestError(
            "the scores of this model have no probabilities",
            "set --activation softmax or sigmoid, or explain the score itself: --score logit",
        )
    return len(scores) == 1 or activation == "sigmoid"
